"""Fits to right and wrong answers that are paired token by token."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from odesteer.artifact import load
from odesteer.barriers import Contrast
from odesteer.barriers.pairing import pair
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods import CAA, HPR, Amount, EndToEnd, Method
from odesteer.models import SteeredModel, fit_aligned

QUESTION = "what is it?"
RIGHT, WRONG = (" a good sun", " it shines"), (" the wrong moon", " no, a", " it shines so")


class Keeps(Method):
    """Keeps what it was fitted to."""

    quantities: ClassVar[tuple[str, ...]] = ("T",)
    reference: ClassVar[str] = "none"
    contrast_: Contrast

    @property
    def default_amount(self) -> Amount:
        return Amount("T", 0.0)

    def _fit(self, contrast: Contrast) -> None:
        self.contrast_ = contrast

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        return Solution(a, torch.zeros(a.shape[:-1]))


def answers(n: int = 1) -> ContrastData:
    asked = [f"{QUESTION} {i}" for i in range(n)]
    sides = [tuple(Example(q, text) for q in asked for text in side) for side in (RIGHT, WRONG)]
    groups = [tuple(q for q in asked for _ in side) for side in (RIGHT, WRONG)]
    return ContrastData(sides[0], sides[1], groups[0], groups[1])


def test_every_right_stands_against_every_wrong_answer(lm: SteeredModel) -> None:
    (steerer,) = fit_aligned(lm, Keeps(), answers(), [1], most_alike=0.8)
    assert isinstance(steerer.method, Keeps)
    contrast = steerer.method.contrast_
    pairs = pair(contrast)
    assert not pairs.n_alone
    expected: tuple[list[Tensor], list[Tensor]] = ([], [])
    n_left_out = 0
    for right in RIGHT:
        for wrong in WRONG:
            if (right, wrong) == (RIGHT[1], WRONG[2]):  # alike but for the last letters
                n_left_out += 1
                continue
            one, other = (
                lm.capture([Example(f"{QUESTION} 0", text)], 1, "answer").states[1]
                for text in (right, wrong)
            )
            n = min(len(one), len(other))
            expected[0].append(one[:n])
            expected[1].append(other[:n])
    assert n_left_out == 1
    torch.testing.assert_close(contrast.positive[pairs.positive], torch.cat(expected[0]))
    torch.testing.assert_close(contrast.negative[pairs.negative], torch.cat(expected[1]))
    every = fit_aligned(lm, Keeps(), answers(), [1], most_alike=1.0).steerers[0].method
    assert isinstance(every, Keeps)
    assert len(every.contrast_.positive) > len(contrast.positive)


def test_the_published_form_keeps_the_layers_of_the_best_probes(
    lm: SteeredModel, tmp_path: Path
) -> None:
    method = HPR.paper(lm.width)
    assert method.hidden == (16, 8, 4)
    all_layers = fit_aligned(lm, method, answers(8), [3, 0, 1, 2])
    best = fit_aligned(lm, method, answers(8), [3, 0, 1, 2], best=2)
    scores = {s.site.layer: s.provenance.held_out["auc"] for s in all_layers if s.site}
    kept = {s.site.layer for s in best if s.site}
    assert len(kept) == 2
    assert min(scores[i] for i in kept) >= max(scores[i] for i in scores.keys() - kept)
    best.save(tmp_path / "hpr.safetensors")
    again = load(tmp_path / "hpr.safetensors")
    options = {"max_new_tokens": 4, "do_sample": False}
    assert lm.generate(QUESTION, again, **options) == lm.generate(QUESTION, best, **options)


def test_what_cannot_be_aligned_is_refused(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="best must be from 1 to 2"):
        fit_aligned(lm, CAA(), answers(), [0, 1], best=3)
    with pytest.raises(InvalidInputError, match="different layers"):
        fit_aligned(lm, CAA(), answers(), [1, 1])
    with pytest.raises(InvalidInputError, match="most_alike"):
        fit_aligned(lm, CAA(), answers(), [1], most_alike=0.0)
    with pytest.raises(InvalidInputError, match="EndToEnd"):
        fit_aligned(lm, EndToEnd(), answers(), [1])
    with pytest.raises(InvalidInputError, match="held-out AUC"):
        fit_aligned(lm, Keeps(), answers(4), [0, 1], best=1)
    same = (Example(QUESTION, " sun"),) * 2
    alike = ContrastData(same, same, ("a", "b"), ("a", "b"))
    with pytest.raises(InvalidInputError, match="75% alike"):
        fit_aligned(lm, CAA(), alike, [1])
    with pytest.raises(InvalidInputError, match="at least 8"):
        HPR.paper(4)
