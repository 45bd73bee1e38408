"""Everything that a search has measured, and what it recommends."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from odesteer.tuning.objectives.base import Score
from odesteer.tuning.search.grid import Candidate, Cell
from odesteer.tuning.search.successive_halving import MISSING_SHARE, Halving, rank

MEASURED = "measured"


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        cell: the setting.
        score: over the items that it was measured on; None where it could not be tried.
        state: `measured` on every item, or why not: `over budget`, `behind`, `halved`, `not
            judged`, or the error that it ended with.
        stage: 0 for the coarse grid, then the number of the refinement.
    """

    cell: Cell
    score: Score | None
    state: str
    stage: int


@dataclass(frozen=True)
class Surface:
    """The outcome of a search.

    Attributes:
        candidates: what was tried.
        rows: every setting, in the order in which they came up.
        unsteered: the score of the unsteered model, on all items.
        budget: the largest mean cost in fluency, nats a token.
        halving: by which rule settings were given up.
        about: what the objective says about itself.
        default: a setting that is preferred to better ones, if it may be chosen.
    """

    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    unsteered: Score
    budget: float
    halving: Halving
    about: Mapping[str, Any]
    default: Cell | None = None

    def without_default(self) -> "Surface":
        """The same with no setting preferred."""
        return replace(self, default=None)

    @property
    def eligible(self) -> list[Row]:
        """Settings that may be chosen, the best first.

        They were measured on every item, are within the budget, and left no more than a tenth
        more items without a verdict than the unsteered model. Equal values are ordered by cost,
        then as they came up.
        """
        rows = [row for row in self.rows if row.state == MEASURED and self._is_sound(row.score)]
        return sorted(rows, key=lambda row: rank(_known(row), self.budget))

    @property
    def most_missing(self) -> float:
        """The share of items that may have no value: a tenth more than of the unsteered model."""
        return self.unsteered.missing / max(self.unsteered.n, 1) + MISSING_SHARE

    @property
    def choice(self) -> Row | None:
        """The default if it is eligible, else the best that is; None if there is none."""
        rows = self.eligible
        preferred = (row for row in rows if row.cell == self.default)
        return next(preferred, rows[0] if rows else None)

    def best_of(self, candidate: int) -> Row | None:
        """The best eligible setting of one candidate, by its number."""
        return next((row for row in self.eligible if row.cell.candidate == candidate), None)

    def least_costly(self) -> Row | None:
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
                    "candidate": row.cell.candidate,
                    "layer": row.cell.layer,
                    row.cell.amount.quantity: row.cell.value,
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


def _known(row: Row) -> Score:
    if row.score is None:
        raise ValueError(f"{row.cell} was never measured.")
    return row.score
