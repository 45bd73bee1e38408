"""Choosing settings: what a search is told of scores, and what it comes to."""

import pytest
from bench_case import Numbers

from odesteer.evaluation.runner.selection import chosen, measurements
from odesteer.methods import CAA, Amount
from odesteer.tuning import Candidate, Halving, Score, SearchResults, Setting, SettingResult


def test_the_cost_is_the_rise_over_unsteered_texts_item_by_item() -> None:
    base = [{"dist-1": 0.5, "nll": 1.0}, {"dist-1": 0.5, "nll": 2.0}, {"dist-1": 0.5, "nll": 3.0}]
    ours = [{"dist-1": 0.9, "nll": 1.5}, {"dist-1": None, "nll": 1.0}, {"dist-1": 0.1, "nll": None}]
    found = measurements(Numbers(), ours, base, less=False)
    assert [(m.value, m.fluency) for m in found] == [(0.9, 0.5), (None, -1.0), (0.1, None)]
    assert [m.value for m in measurements(Numbers(), ours, base, less=True)] == [-0.9, None, -0.1]
    own = measurements(Numbers(), base, None, less=False)
    assert [m.fluency for m in own] == [0.0, 0.0, 0.0]


def test_where_fluency_is_not_measured_nothing_costs() -> None:
    ours = [{"dist-1": 0.9}, {"dist-1": None}]
    assert [m.fluency for m in measurements(Numbers(), ours, ours, less=False)] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ((0.1, 0.3, 0.9), 0.2),  # the best within the budget
        ((0.8, 0.7, 0.9), 0.2),  # none is: the most fluent
        ((0.1, float("nan"), 0.9), 0.1),  # nothing but blanks has no fluency
    ],
)
def test_the_best_affordable(costs: tuple[float, ...], expected: float) -> None:
    candidate = Candidate("caa", CAA(), "strength", (0.1, 0.2, 0.4))
    rows = tuple(
        SettingResult(
            Setting(0, 1, Amount("strength", size)), Score(size, cost, n=8), "measured", 0
        )
        for size, cost in zip(candidate.values, costs, strict=True)
    )
    surface = SearchResults((candidate,), rows, Score(0.0, 0.0, n=8), 0.5, Halving(), {})
    assert chosen(surface).value == expected
