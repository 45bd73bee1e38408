"""Choice of each contender's setting on validation items, and the curve of all settings."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odesteer.evaluation.runner.contenders import Contender
from odesteer.evaluation.runner.plan import CompletionSpec, setting_json
from odesteer.evaluation.task import Task
from odesteer.tuning import Measurement, SearchResults, Setting

ItemScores = Mapping[str, float | None]
FLUENCY = "nll"
"""The metric whose increase is the cost of a setting."""


@dataclass
class CurvePoint:
    """One setting of one contender on validation items, over all seeds.

    Attributes:
        n: items that it was measured on.
        missing: those without the headline metric.
        means: of every metric, over those that are not missing.
        error: standard error of the mean headline metric; None for fewer than two results.
        state: `measured` on all items, or why not, see `odesteer.tuning.Halving`.
        chosen: whether it is the contender's setting.
    """

    task: str
    fold: str
    contender: Contender
    setting: Setting | None
    n: int = 0
    missing: int = 0
    means: dict[str, float] = field(default_factory=dict)
    error: float | None = None
    state: str = "measured"
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "fold": self.fold,
            "contender": self.contender.name,
            **setting_json(self.contender, self.setting),
            "n": self.n,
            "missing": self.missing,
            "state": self.state,
            "chosen": self.chosen,
            "metrics": dict(sorted(self.means.items())),
        }


def points(results: Iterable[tuple[CompletionSpec, ItemScores]]) -> list[CurvePoint]:
    """Means over all results of each setting, in the order in which settings first appear."""
    found: dict[tuple[str, str, str, Setting | None], list[tuple[CompletionSpec, ItemScores]]] = {}
    for spec, scores in results:
        key = (spec.task.name, spec.fold.name, spec.contender.name, spec.setting)
        found.setdefault(key, []).append((spec, scores))
    table = []
    for (task, fold, _, setting), group in found.items():
        first = group[0][0]
        point = CurvePoint(task, fold, first.contender, setting, n=len(group))
        for metric in sorted({name for _, scores in group for name in scores}):
            known = [value for _, scores in group if (value := scores.get(metric)) is not None]
            if known:
                point.means[metric] = math.fsum(known) / len(known)
        values = [v for _, scores in group if (v := scores.get(first.task.headline)) is not None]
        if len(values) > 1:
            point.error = statistics.stdev(values) / math.sqrt(len(values))
        point.missing = sum(scores.get(first.task.headline) is None for _, scores in group)
        table.append(point)
    return table


def mark(
    table: Iterable[CurvePoint], searches: Mapping[tuple[str, str, str], SearchResults]
) -> None:
    """Set the state of each point, and whether it was chosen."""
    for point in table:
        search = searches.get((point.task, point.fold, point.contender.name))
        if search is None or point.setting is None:
            continue
        states = {row.setting: row.state for row in search.rows}
        point.state = states[point.setting]
        point.chosen = point.setting == chosen(search)


def chosen(search: SearchResults) -> Setting:
    """The setting to report: the choice; where nothing keeps to the budget, the least costly."""
    row = search.choice or search.least_costly() or search.rows[0]
    return row.setting


def measurements(
    task: Task, scores: Sequence[ItemScores], unsteered: Sequence[ItemScores] | None, *, less: bool
) -> list[Measurement]:
    """The headline metric and the increase of the negative log-likelihood, item by item.

    ``less`` is whether less of the headline is better. The cost is 0 if fluency is not measured at
    all, and missing for a blank text.
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
