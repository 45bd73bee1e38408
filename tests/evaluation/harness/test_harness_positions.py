"""What is scored is steered as generating it token by token would have been."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from odesteer.artifact import POSITIONS, Steerer
from odesteer.models import SteeredModel

CONTEXTS = ["Q: What is the capital of France?\nA:", "Q: Who makes honey?\nA:"]
ANSWERS = [" Paris, I believe.", " A bee.", " Nobody, as far as I know."]


def steerer(path: Path, position: str = "last", gate: int | None = None) -> Steerer:
    """The truthful steerer at a position; with a gate that is read at a layer and always open."""
    found = Steerer.load(path)
    assert found.site is not None
    found = replace(found, site=replace(found.site, position=position))
    if gate is None:
        return found
    condition = replace(found, site=replace(found.site, layer=gate))
    return found.when(condition, above=-1e6)


def written_likelihood(
    lm: SteeredModel, steerer: Steerer | None, context: list[int], following: list[int]
) -> float:
    """Log-likelihood of tokens fed back one at a time, as generation does it."""
    total, cache, fed = 0.0, None, context
    with torch.no_grad(), lm.steering(*([] if steerer is None else [steerer])):
        for token in following:
            out = lm.model(torch.tensor([fed]), past_key_values=cache, use_cache=True)
            total += float(out.logits[0, -1].log_softmax(dim=-1)[token])
            cache, fed = out.past_key_values, [token]
    return total


def requests(lm: Any) -> list[tuple[tuple[str, str], list[int], list[int]]]:
    return [
        ((context, text), *lm._encode_pair(context, text))
        for context in CONTEXTS
        for text in ANSWERS
    ]


def scored(lm: Any, asked: Any) -> list[float]:
    return [value for value, _ in lm._loglikelihood_tokens(asked, disable_tqdm=True)]


@pytest.mark.parametrize("position", POSITIONS)
def test_likelihoods_are_those_of_generating(
    lm: SteeredModel, harness: Any, truthful: Path, position: str
) -> None:
    one = steerer(truthful, position)
    model = harness(pretrained=lm.model, tokenizer=lm.tokenizer, steer=one, batch_size=4)
    asked = requests(model)
    expected = [written_likelihood(lm, one, context, text) for _, context, text in asked]
    plain = [written_likelihood(lm, None, context, text) for _, context, text in asked]
    assert scored(model, asked) == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(plain, abs=1e-2)


@pytest.mark.parametrize("layer", [2, 5])
def test_gates_before_and_behind_the_layer_decide_as_in_generating(
    lm: SteeredModel, harness: Any, truthful: Path, layer: int
) -> None:
    one = steerer(truthful, "last", gate=layer)
    model = harness(pretrained=lm.model, tokenizer=lm.tokenizer, steer=one, batch_size=4)
    asked = requests(model)
    expected = [written_likelihood(lm, one, context, text) for _, context, text in asked]
    assert scored(model, asked) == pytest.approx(expected, abs=1e-4)


def test_equal_tokens_with_other_contexts_are_steered_from_other_tokens_on(
    lm: SteeredModel, harness: Any, truthful: Path
) -> None:
    one = steerer(truthful)
    model = harness(pretrained=lm.model, tokenizer=lm.tokenizer, steer=one, batch_size=4)
    ids = model.tok_encode(CONTEXTS[0] + ANSWERS[0])
    asked = [(("", str(at)), ids[:at], ids[at:]) for at in (len(ids) - 4, len(ids) - 2)]
    expected = [written_likelihood(lm, one, *parts) for _, *parts in asked]
    assert scored(model, asked) == pytest.approx(expected, abs=1e-4)


def test_choices_of_one_token_share_a_row() -> None:
    from odesteer.evaluation.harness.model import rows_of

    asked = [("a", [1, 2], [3, 4]), ("b", [1, 2], [3, 5]), ("c", [1, 2, 3], [4])]
    assert [numbers for _, numbers in rows_of(asked, 99)] == [[2], [0, 1]]


def test_whole_texts_are_taken_for_generated(
    lm: SteeredModel, harness: Any, truthful: Path
) -> None:
    one = steerer(truthful)
    model = harness(
        pretrained=lm.model, tokenizer=lm.tokenizer, steer=one, batch_size=2, max_length=12
    )
    ids = model.tok_encode(CONTEXTS[0] + ANSWERS[0])
    windows = [(None, ids[:1], ids[1:9]), (None, ids[4:9], ids[9:14])]
    expected = [
        written_likelihood(lm, one, ids[:1], ids[1:9]),
        written_likelihood(lm, one, ids[4:5], ids[5:14])
        - written_likelihood(lm, one, ids[4:5], ids[5:9]),
    ]
    assert scored(model, windows) == pytest.approx(expected, abs=1e-4)


def test_the_harness_may_choose_the_batch_size(
    lm: SteeredModel, harness: Any, truthful: Path
) -> None:
    parts = {"pretrained": lm.model, "tokenizer": lm.tokenizer, "steer": steerer(truthful)}
    fixed = harness(**parts, batch_size=2)
    chosen = harness(**parts, batch_size="auto", max_batch_size=4)
    asked = requests(fixed)
    assert scored(chosen, asked) == pytest.approx(scored(fixed, asked), abs=1e-4)


def test_long_contexts_lose_their_beginning(lm: SteeredModel, harness: Any, truthful: Path) -> None:
    one = steerer(truthful)
    model = harness(
        pretrained=lm.model, tokenizer=lm.tokenizer, steer=one, batch_size=2, max_length=12
    )
    ((key, context, text), *_) = requests(model)
    assert len(context) + len(text) > 13
    kept = context[-(13 - len(text)) :]
    expected = written_likelihood(lm, one, kept, text)
    assert scored(model, [(key, context, text)]) == pytest.approx([expected], abs=1e-4)
