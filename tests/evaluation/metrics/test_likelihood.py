"""Log-likelihoods of responses against transformers' own loss."""

import math

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.data import Example, Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.evaluation.metrics import log_likelihoods, nll, perplexity
from odesteer.methods import CAA, Amount
from odesteer.models import SteeredModel

EXAMPLES = [
    Example("Q: who?\nA:", " nobody"),
    Example("", "and the cat"),
    Example("a longer prompt, with more tokens", " x"),
    Example((Message("user", "hi"),), "hello there"),
    Example("the", " other the and"),
]


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def steerer() -> Steerer:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 16, tiny_models.WIDTH, generator=generator)
    return Steerer(CAA().fit(positive + 1, negative), Site(1, "last"))


@pytest.mark.parametrize("build", ["llama", "gpt2", "bloom", "mamba"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_perplexity_is_the_exponential_of_the_loss(build: str, batch_size: int) -> None:
    lm = SteeredModel(tiny_models.ARCHITECTURES[build](), tiny_models.tokenizer())
    for example, found in zip(
        EXAMPLES, log_likelihoods(lm, EXAMPLES, batch_size=batch_size), strict=True
    ):
        encoded = lm.encode(example)
        ids = torch.tensor([encoded.ids])
        labels = ids.clone()
        labels[:, : encoded.n_prompt] = -100
        with torch.no_grad():
            loss = lm.model(input_ids=ids, labels=labels).loss.item()
        assert found.n_tokens == len(encoded) - encoded.n_prompt
        assert nll(found) == pytest.approx(loss, abs=1e-4)
        assert perplexity(found) == pytest.approx(math.exp(loss), rel=1e-3)


def test_steered_passes_are_those_of_generation(lm: SteeredModel, steerer: Steerer) -> None:
    amount = Amount("strength", 0.7)
    steered = log_likelihoods(lm, EXAMPLES, steerer, amount)
    for example, found, plain in zip(EXAMPLES, steered, log_likelihoods(lm, EXAMPLES), strict=True):
        encoded = lm.encode(example)
        total, cache = 0.0, None
        # As generation does it: the prompt in one pass, then a token at a time.
        fed = [encoded.ids[: encoded.n_prompt], *([one] for one in encoded.ids[encoded.n_prompt :])]
        with torch.no_grad(), lm.steering(steerer, strength=0.7):
            for part, said in zip(fed, encoded.ids[encoded.n_prompt :], strict=False):
                out = lm.model(torch.tensor([list(part)]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                total += out.logits[0, -1].log_softmax(-1)[said].item()
        assert found.total == pytest.approx(total, abs=1e-3)
        assert abs(found.total - plain.total) > 1e-2


def test_what_cannot_be_scored_is_refused(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="context"):
        log_likelihoods(lm, [Example("a" * 200, "b")])
    with pytest.raises(InvalidInputError, match="needs a steerer"):
        log_likelihoods(lm, EXAMPLES, None, Amount("T", 1.0))
    with pytest.raises(InvalidInputError, match="batch_size"):
        log_likelihoods(lm, EXAMPLES, batch_size=0)
    bare = SteeredModel(lm.model, tiny_models.tokenizer(adds_bos=False))
    with pytest.raises(InvalidInputError, match="give it a prompt"):
        log_likelihoods(bare, [Example("", "b")])
    training = SteeredModel(tiny_models.llama().train(), lm.tokenizer)
    with pytest.raises(ModelError, match="training mode"):
        log_likelihoods(training, EXAMPLES)


def test_a_perplexity_too_large_for_a_float_is_infinite() -> None:
    from odesteer.tuning.objectives.log_likelihood import LogLikelihood

    assert perplexity(LogLikelihood(-5000.0, 1)) == math.inf


def test_long_prompts_lose_their_beginning_where_that_is_asked_for(
    lm: SteeredModel, steerer: Steerer
) -> None:
    n, response = tiny_models.CONTEXT, "the end"
    # Letters are tokens here: what is left of a long prompt begins with its first kept letter.
    long = "".join("abcdefghij"[i % 10] for i in range(2 * n))
    short, cut = log_likelihoods(
        lm, [Example("x", response), Example(long, response)], truncate=True
    )
    assert short.n_lost == 0
    whole = len(lm.tokenizer(long + response)["input_ids"])
    assert cut.n_lost == whole - (n + 1) > 0
    ids = lm.tokenizer(long + response)["input_ids"][cut.n_lost :]
    with torch.no_grad():
        logs = lm.model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    expected = sum(logs[i - 1, ids[i]].item() for i in range(len(ids) - cut.n_tokens, len(ids)))
    assert cut.total == pytest.approx(expected, abs=1e-3)
    with pytest.raises(InvalidInputError, match="alone is longer"):
        log_likelihoods(lm, [Example("a", "b" * (2 * n))], truncate=True)
