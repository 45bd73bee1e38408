"""Choosing each contender's setting on validation items, and the curve it was chosen from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odesteer.evaluation.runner.contenders import Contender
from odesteer.evaluation.runner.plan import Row, cell_json
from odesteer.evaluation.task import Task
from odesteer.tuning import Measurement, SearchResults, Setting

Scored = Mapping[str, float | None]
FLUENCY = "nll"
"""The metric whose rise is the cost of a setting."""


@dataclass
class Point:
    """One setting of one contender on validation items, over all seeds.

    Attributes:
        n: items that it was measured on.
        missing: those without the headline metric.
        means: of every metric, over those that are not missing.
        state: `measured` on all items, or why not, see `odesteer.tuning.Halving`.
        chosen: whether it is the contender's setting.
    """

    task: str
    fold: str
    contender: Contender
    cell: Setting | None
    n: int = 0
    missing: int = 0
    means: dict[str, float] = field(default_factory=dict)
    state: str = "measured"
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "fold": self.fold,
            "contender": self.contender.name,
            **cell_json(self.contender, self.cell),
            "n": self.n,
            "missing": self.missing,
            "state": self.state,
            "chosen": self.chosen,
            "metrics": dict(sorted(self.means.items())),
        }


def points(results: Iterable[tuple[Row, Scored]]) -> list[Point]:
    """Means over all results of each setting, in the order in which settings first appear."""
    found: dict[tuple[str, str, str, Setting | None], list[tuple[Row, Scored]]] = {}
    for row, scores in results:
        key = (row.task.name, row.fold.name, row.contender.name, row.cell)
        found.setdefault(key, []).append((row, scores))
    table = []
    for (task, fold, _, cell), mine in found.items():
        first = mine[0][0]
        point = Point(task, fold, first.contender, cell, n=len(mine))
        for metric in sorted({name for _, scores in mine for name in scores}):
            known = [value for _, scores in mine if (value := scores.get(metric)) is not None]
            if known:
                point.means[metric] = math.fsum(known) / len(known)
        point.missing = sum(scores.get(first.task.headline) is None for _, scores in mine)
        table.append(point)
    return table


def mark(table: Iterable[Point], surfaces: Mapping[tuple[str, str, str], SearchResults]) -> None:
    """Tell the points what became of them."""
    for point in table:
        surface = surfaces.get((point.task, point.fold, point.contender.name))
        if surface is None or point.cell is None:
            continue
        states = {row.setting: row.state for row in surface.rows}
        point.state = states[point.cell]
        point.chosen = point.cell == chosen(surface)


def chosen(surface: SearchResults) -> Setting:
    """The setting to report: the choice; where nothing keeps to the budget, the least costly."""
    row = surface.choice or surface.least_costly() or surface.rows[0]
    return row.setting


def measurements(
    task: Task, scores: Sequence[Scored], unsteered: Sequence[Scored] | None, *, less: bool
) -> list[Measurement]:
    """The headline metric and the rise of the negative log-likelihood, item by item.

    ``less`` is whether less of the headline is better. Nothing is a cost where fluency is not
    measured at all; a blank text has none.
    """
    own = scores if unsteered is None else unsteered
    measured = any(one.get(FLUENCY) is not None for one in own)
    found = []
    for ours, base in zip(scores, own, strict=True):
        value = ours.get(task.headline)
        now, before = ours.get(FLUENCY), base.get(FLUENCY)
        known = now is not None and before is not None
        cost = now - before if known else None  # type: ignore[operator]
        signed = value if value is None or not less else -value
        found.append(Measurement(signed, cost if measured else 0.0))
    return found
