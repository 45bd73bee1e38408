"""Prompts computed once: the same log-likelihoods and distributions as a pass over everything."""

import pytest
import torch

import tiny_models
from odesteer import CAA, ContrastData, Example, ODESteer, SteeredModel, Steerer
from odesteer.evaluation.metrics import log_likelihoods
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.methods import Amount

EXAMPLES = [
    Example(prompt, response)
    for prompt in ("one two three", "a", "the quick brown fox jumps over the dog")
    for response in (" up and up", " down", " and on and on and on")
]


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def data() -> ContrastData:
    ups = [f"number {i} goes up" for i in range(8)]
    return ContrastData.from_texts(ups, [text.replace("up", "down") for text in ups])


def totals(found: list[object]) -> torch.Tensor:
    return torch.tensor([one.total for one in found])  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [CAA(), ODESteer()], ids=["caa", "odesteer"])
def test_it_equals_whole_passes(lm: SteeredModel, data: ContrastData, method: object) -> None:
    scorer = PrefixScorer(lm)
    steerer = lm.fit(method, data, 1)  # type: ignore[arg-type]
    for amount in (Amount("strength", 1.0), Amount("strength", 4.0), Amount("level", 1.0)):
        whole = log_likelihoods(lm, EXAMPLES, steerer, amount)
        cached = log_likelihoods(lm, EXAMPLES, steerer, amount, scorer=scorer)
        assert [one.n_tokens for one in cached] == [one.n_tokens for one in whole]
        torch.testing.assert_close(totals(cached), totals(whole), rtol=1e-4, atol=1e-4)
    plain = log_likelihoods(lm, EXAMPLES, scorer=scorer)
    torch.testing.assert_close(
        totals(plain), totals(log_likelihoods(lm, EXAMPLES)), rtol=1e-4, atol=1e-4
    )
    assert (totals(plain) - totals(cached)).abs().max() > 1e-3


def test_a_prompt_passes_once_for_all_settings(
    lm: SteeredModel, data: ContrastData, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[int] = []
    forward = lm.model.forward

    def counted(*args: object, **options: object) -> object:
        ids = options.get("input_ids", args[0] if args else None)
        columns.append(ids.shape[1])  # type: ignore[union-attr]
        return forward(*args, **options)

    monkeypatch.setattr(lm.model, "forward", counted)
    scorer, steerer = PrefixScorer(lm), lm.fit(CAA(), data, 1)
    columns.clear()
    for strength in (1.0, 2.0, 3.0):
        log_likelihoods(lm, EXAMPLES, steerer, Amount("strength", strength), scorer=scorer)
    assert len(columns) == 4  # one pass over the prompts, one for each setting
    assert max(columns[1:]) < columns[0] + 6


def test_log_probabilities_are_those_that_are_summed(lm: SteeredModel) -> None:
    scorer = PrefixScorer(lm)
    encoded = [lm.encode(example) for example in EXAMPLES]
    logs = scorer.log_probabilities(encoded)
    for one, example, found in zip(logs, encoded, scorer.log_likelihoods(encoded), strict=True):
        ids = torch.tensor(example.ids[example.n_prompt :])
        assert float(one.gather(-1, ids[:, None]).sum()) == pytest.approx(found.total, abs=1e-4)


def test_steering_of_prompts_is_left_to_whole_passes(lm: SteeredModel, data: ContrastData) -> None:
    steerer = lm.fit(CAA(), data, 1)
    everywhere: Steerer = lm.fit(CAA(), data, 1, steer_position="all")
    assert PrefixScorer.can_score(lm, steerer)
    assert not PrefixScorer.can_score(lm, everywhere)
    amount, scorer = Amount("strength", 2.0), PrefixScorer(lm)
    whole = log_likelihoods(lm, EXAMPLES, everywhere, amount)
    kept = log_likelihoods(lm, EXAMPLES, everywhere, amount, scorer=scorer)
    assert totals(kept).tolist() == totals(whole).tolist()
