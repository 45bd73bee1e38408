"""Successive halving: which settings are stopped early, and the order that decides it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from odesteer.errors import InvalidInputError
from odesteer.tuning.objectives.base import Measurement, Score, mean_and_error
from odesteer.tuning.search.grid import Setting
from odesteer.untrusted import is_integer

MISSING_SHARE = 0.1
"""Share of items that may have no value beyond that of the unsteered model."""

NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Halving:
    """Successive halving over validation items.

    All settings are measured on a first part of the items. Then settings of four kinds are
    stopped, and the others measured on further items, until all items are used:

    - not judged: too many items have no value;
    - over budget: the mean cost in fluency less two standard errors is over the budget;
    - behind: the mean difference to the best setting within the budget, item by item, plus two
      standard errors is below zero;
    - halved: not among the best ``1 / factor`` of what is left, nor among the best ``least``.

    Parameters:
        rungs: how often items are added; 1 measures every setting on every item.
        factor: how many times fewer settings remain after each rung.
        least: settings that halving leaves.
        first: the fewest items of a rung.

    Raises `InvalidInputError` for numbers out of range.
    """

    rungs: int = 3
    factor: float = 2.0
    least: int = 4
    first: int = 8

    def __post_init__(self) -> None:
        for name in ("rungs", "least", "first"):
            number = getattr(self, name)
            if not is_integer(number, 1):
                raise InvalidInputError(f"{name} must be a positive integer, not {number!r}.")
        if not 1 <= self.factor < math.inf:
            raise InvalidInputError(f"factor must be at least 1, not {self.factor!r}.")

    def steps(self, n_items: int) -> list[range]:
        """The items that each rung adds; the first rungs are the shorter ones."""
        ends = [math.ceil(n_items / 2**k) for k in range(self.rungs - 1, -1, -1)]
        ends = sorted({end for end in ends if end >= self.first or end == n_items})
        starts = [0, *ends[:-1]]
        return [range(a, b) for a, b in zip(starts, ends, strict=True)]

    def most(self, n_settings: int, steps: Sequence[range]) -> int:
        """Upper bound on the measurements of ``n_settings`` settings in these rungs."""
        most = 0
        for items in steps:
            most += n_settings * len(items)
            n_settings = max(math.ceil(n_settings / self.factor), min(n_settings, self.least))
        return most

    def given_up(
        self,
        measured: Mapping[Setting, Sequence[Measurement]],
        budget: float,
        most_missing: float = MISSING_SHARE,
    ) -> dict[Setting, str]:
        """The settings to stop, each with the reason.

        All were measured on the same items; ``most_missing`` is the largest share of them that
        may be without a value.
        """
        scores = {setting: Score.of(items) for setting, items in measured.items()}
        reasons: dict[Setting, str] = {}
        for setting, score in scores.items():
            if math.isnan(score.value) or score.missing > most_missing * score.n:
                reasons[setting] = NOT_JUDGED
            elif _surely_over(score.fluency, score.fluency_error, budget):
                reasons[setting] = "over budget"
        left = sorted(
            (c for c in scores if c not in reasons), key=lambda c: rank(scores[c], budget)
        )
        if left and scores[left[0]].fluency <= budget:
            best = measured[left[0]]
            for setting in left[1:]:
                difference, error = mean_and_error(
                    a.value - b.value
                    for a, b in zip(measured[setting], best, strict=True)
                    if a.value is not None and b.value is not None
                )
                if difference + 2 * error < 0:
                    reasons[setting] = "behind"
        left = [setting for setting in left if setting not in reasons]
        kept = max(math.ceil(len(left) / self.factor), self.least)
        return reasons | dict.fromkeys(left[kept:], "halved")


def rank(score: Score, budget: float) -> tuple[bool, float, float]:
    """Smaller is better: within the budget, then by value, then by cost.

    Settings over the budget are ordered by their cost alone.
    """
    over = not score.fluency <= budget
    if over:
        return True, _or_infinite(score.fluency), -_or_infinite(score.value)
    return False, -score.value, score.fluency


def _surely_over(cost: float, error: float, budget: float) -> bool:
    return cost - 2 * (0.0 if math.isnan(error) else error) > budget


def _or_infinite(figure: float) -> float:
    return math.inf if math.isnan(figure) else figure
