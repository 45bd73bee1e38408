"""KL divergence to the unsteered model on neutral text."""

import math

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.data import Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA
from odesteer.models import SteeredModel, neutral_prompts
from odesteer.models.divergence import kl_divergence

QUESTIONS = ["How are you?", "Why is it so?", "Name a river.", "Write a line.", "Hello!"]


def pushing(width: int, position: str = "last") -> Steerer:
    generator = torch.Generator().manual_seed(1)
    positive = torch.randn(40, width, generator=generator)
    method = CAA(strength=1.0).fit(positive + 1, positive - 1)
    return Steerer(method, Site(1, position))


def test_the_bundled_prompts_are_split_by_a_fixed_rule() -> None:
    every = neutral_prompts()
    train, validation = neutral_prompts("train"), neutral_prompts("validation")
    assert (len(every), len(train), len(validation)) == (120, 80, 40)
    assert len(set(every)) == 120
    assert set(train) | set(validation) == set(every)
    assert validation == every[2::3]
    with pytest.raises(InvalidInputError, match="train or validation"):
        neutral_prompts("test")  # type: ignore[arg-type]


def test_a_steerer_costs_what_the_distributions_say(any_lm: SteeredModel) -> None:
    """Each text alone, in one pass, by the definition; in batches the same."""
    steerer = pushing(any_lm.width)
    found = any_lm.divergence(steerer, strength=2.0, prompts=QUESTIONS, max_new_tokens=6)
    texts = any_lm.neutral_texts(QUESTIONS, max_new_tokens=6).texts
    for text, measured in zip(texts, found.per_text.tolist(), strict=True):
        ids = torch.tensor([text.ids])
        answer = slice(text.n_prompt - 1, len(text) - 1)
        with torch.no_grad():
            before = any_lm.model(ids).logits[0, answer].log_softmax(-1)
            with any_lm.steering(steerer, strength=2.0, prompt_width=text.n_prompt):
                after = any_lm.model(ids).logits[0, answer].log_softmax(-1)
        expected = (before.exp() * (before - after)).sum(-1).mean()
        assert measured == pytest.approx(float(expected), rel=0.02, abs=1e-4)
    assert found.mean > 0
    assert found.tokens.tolist() == [len(text.response) for text in texts]


def test_nothing_costs_nothing(lm: SteeredModel) -> None:
    found = lm.divergence(pushing(lm.width), strength=0.0, prompts=QUESTIONS, max_new_tokens=5)
    assert found.per_text.abs().max() < 1e-5


def test_answers_are_the_greedy_ones_and_end_with_their_stop(lm: SteeredModel) -> None:
    texts = lm.neutral_texts(QUESTIONS, max_new_tokens=8)
    for question, text in zip(QUESTIONS, texts.texts, strict=True):
        prompt = lm.encode([Message("user", question)])
        assert text.ids[: text.n_prompt] == prompt.ids
        ids = list(prompt.ids)
        for token in text.ids[text.n_prompt :]:
            with torch.no_grad():
                assert int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
        assert len(text.response) == 8 or ids[-1] == 2


def test_models_without_a_chat_template_are_asked_in_text() -> None:
    base = SteeredModel(tiny_models.llama(), tiny_models.tokenizer(chats=False))
    texts = base.neutral_texts(["How?"], max_new_tokens=4).texts
    assert base.tokenizer.decode(texts[0].ids[: texts[0].n_prompt]).endswith("Q: How?\nA:")
    assert base.divergence(system="Be brief.", prompts=["How?"], max_new_tokens=4).mean > 0


def test_the_cost_of_a_system_prompt(lm: SteeredModel) -> None:
    found = lm.divergence(system="Talk like a sailor.", prompts=QUESTIONS, max_new_tokens=5)
    text = lm.neutral_texts(QUESTIONS, max_new_tokens=5).texts[0]
    opening = lm.encode([Message("system", "Talk like a sailor."), Message("user", QUESTIONS[0])])
    answer = text.ids[text.n_prompt :]
    with torch.no_grad():
        before = lm.model(torch.tensor([text.ids])).logits[0, text.n_prompt - 1 : -1]
        ids = torch.tensor([[*opening.ids, *answer]])
        after = lm.model(ids).logits[0, len(opening) - 1 : -1]
    expected = kl_divergence(before.log_softmax(-1), after.log_softmax(-1)).mean()
    assert float(found.per_text[0]) == pytest.approx(float(expected), rel=0.01, abs=1e-4)


def test_answers_are_kept_until_the_weights_change() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    first = lm.neutral_texts(QUESTIONS, max_new_tokens=4)
    assert lm.neutral_texts(QUESTIONS, max_new_tokens=4) is first
    assert lm.neutral_texts(QUESTIONS, max_new_tokens=5) is not first
    with torch.no_grad():
        lm.model.lm_head.weight.mul_(-1)
    changed = lm.neutral_texts(QUESTIONS, max_new_tokens=4)
    assert changed is not first
    assert changed.texts != first.texts


def test_the_error_is_that_of_a_mean_over_texts(lm: SteeredModel) -> None:
    found = lm.divergence(pushing(lm.width), prompts=QUESTIONS, max_new_tokens=5)
    assert 0 < found.standard_error < found.mean * 2
    alone = lm.divergence(pushing(lm.width), prompts=QUESTIONS[:1], max_new_tokens=5)
    assert math.isnan(alone.standard_error)


def test_what_cannot_be_measured(lm: SteeredModel) -> None:
    steerer = pushing(lm.width)
    with lm.steering(steerer):
        with pytest.raises(ModelError, match="outside of the block"):
            lm.divergence(steerer, prompts=["Who knows?"], max_new_tokens=3)
        lm.model(torch.tensor([[1, 2]]))
    with pytest.raises(InvalidInputError, match="one of them"):
        lm.divergence(prompts=QUESTIONS)
    with pytest.raises(InvalidInputError, match="one of them"):
        lm.divergence(steerer, system="Be brief.", prompts=QUESTIONS)
    with pytest.raises(InvalidInputError, match="context 96"):
        lm.divergence(steerer, prompts=["x" * 200], max_new_tokens=8)
    with pytest.raises(InvalidInputError, match="smaller max_new_tokens"):
        lm.divergence(steerer, prompts=["x" * 60], max_new_tokens=60)
    with pytest.raises(InvalidInputError, match="list of texts"):
        lm.divergence(steerer, prompts="Hello!")
    with pytest.raises(InvalidInputError, match="max_new_tokens"):
        lm.divergence(steerer, prompts=QUESTIONS, max_new_tokens=0)
    lm.model.train()
    try:
        with pytest.raises(ModelError, match="training mode"):
            lm.divergence(steerer, prompts=["Another one?"], max_new_tokens=3)
    finally:
        lm.model.eval()


def test_bundled_prompts_that_do_not_fit_are_left_out(lm: SteeredModel) -> None:
    n = len(lm.neutral_texts(max_new_tokens=48).texts)
    assert 0 < n < 40
    with pytest.raises(InvalidInputError, match="no bundled prompt"):
        lm.neutral_texts(max_new_tokens=95)
