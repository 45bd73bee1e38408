"""Results of a search: the score of every setting, and the choice."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from odesteer.tuning.objectives.base import Score
from odesteer.tuning.search.grid import Candidate, Setting
from odesteer.tuning.search.successive_halving import MISSING_SHARE, Halving, rank

MEASURED = "measured"


@dataclass(frozen=True)
class SettingResult:
    """The result of one setting.

    Attributes:
        setting: the setting.
        score: over the items that it was measured on; None after an error.
        state: `measured` on every item, or why not: `over budget`, `behind`, `halved`, `not
            judged`, or the message of the error that it ended with.
        stage: 0 for the coarse grid, then the number of the refinement.
    """

    setting: Setting
    score: Score | None
    state: str
    stage: int


@dataclass(frozen=True)
class SearchResults:
    """The results of a search.

    Attributes:
        candidates: the methods that were tried.
        rows: one for each setting, in the order in which they were requested.
        unsteered: the score of the unsteered model, on all items.
        budget: the largest mean cost in fluency, nats a token.
        halving: the rule by which settings were stopped early.
        about: description of the objective.
        default: a setting that is chosen whenever it is eligible.
    """

    candidates: tuple[Candidate, ...]
    rows: tuple[SettingResult, ...]
    unsteered: Score
    budget: float
    halving: Halving
    about: Mapping[str, Any]
    default: Setting | None = None

    def without_default(self) -> "SearchResults":
        """A copy without the default."""
        return replace(self, default=None)

    @property
    def eligible(self) -> list[SettingResult]:
        """Settings that may be chosen, the best first.

        They were measured on every item, are within the budget, and left no more than a tenth
        more items without a value than the unsteered model. Equal values are ordered by cost,
        then by the order of requests.
        """
        rows = [row for row in self.rows if row.state == MEASURED and self._is_sound(row.score)]
        return sorted(rows, key=lambda row: rank(_known(row), self.budget))

    @property
    def most_missing(self) -> float:
        """The share of items that may have no value: a tenth more than of the unsteered model."""
        return self.unsteered.missing / max(self.unsteered.n, 1) + MISSING_SHARE

    @property
    def choice(self) -> SettingResult | None:
        """The default if it is eligible, else the best that is; None if there is none."""
        rows = self.eligible
        preferred = (row for row in rows if row.setting == self.default)
        return next(preferred, rows[0] if rows else None)

    def best_of(self, candidate: int) -> SettingResult | None:
        """The best eligible setting of one candidate, by its number."""
        return next((row for row in self.eligible if row.setting.candidate == candidate), None)

    def least_costly(self) -> SettingResult | None:
        """The setting with the lowest cost in fluency."""
        known = [r for r in self.rows if r.score is not None and not math.isnan(r.score.fluency)]
        return min(known, key=lambda row: _known(row).fluency, default=None)

    def to_json(self) -> dict[str, Any]:
        """As plain data; NaN becomes None."""
        choice = self.choice
        return {
            "format": "odesteer tuning surface 1",
            "objective": dict(self.about),
            "budget": self.budget,
            "halving": asdict(self.halving),
            "candidates": [
                {"label": c.label, "method": repr(c.method), "quantity": c.quantity}
                for c in self.candidates
            ],
            "unsteered": plain_score(self.unsteered),
            "choice": None if choice is None else self.rows.index(choice),
            "settings": [
                {
                    "candidate": row.setting.candidate,
                    "layer": row.setting.layer,
                    row.setting.amount.quantity: row.setting.value,
                    "state": row.state,
                    "stage": row.stage,
                    **plain_score(row.score),
                }
                for row in self.rows
            ],
        }

    def _is_sound(self, score: Score | None) -> bool:
        if score is None or math.isnan(score.value) or not score.fluency <= self.budget:
            return False
        return score.missing <= self.most_missing * score.n


def plain_score(score: Score | None) -> dict[str, Any]:
    """A score as plain data; NaN becomes None."""
    if score is None:
        return {}
    return {
        name: None if isinstance(figure, float) and math.isnan(figure) else figure
        for name, figure in asdict(score).items()
    }


def _known(row: SettingResult) -> Score:
    if row.score is None:
        raise ValueError(f"{row.setting} was never measured.")
    return row.score
