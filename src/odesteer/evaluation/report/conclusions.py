"""What can be concluded from a run, in sentences: declared contrasts, power, selection noise."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from odesteer.evaluation.metrics import Estimate, PairedBootstrap, holm, p_value, resolution
from odesteer.evaluation.report.summary import headlines, lower_is_better
from odesteer.evaluation.runner import RunResults
from odesteer.evaluation.runner.contenders import CAA_ROW, DEFAULT, ONE_STEP, TUNED
from odesteer.evaluation.task import Task

LEVEL = 0.05
"""The chance of a false positive among all declared contrasts of a run."""
_OURS = (TUNED, DEFAULT)
_OWN_FORMS = (TUNED, ONE_STEP)


@dataclass(frozen=True)
class DeclaredContrast:
    """A comparison that is declared before the run: ODESteer less a reference.

    Attributes:
        ours, reference: names of the rows.
        what: the reference's part: the best baseline on validation items, one step, CAA.
        difference: of the headline metric, ours less the reference's, on the same items.
        p: of the sign-flip test by prompt; ``corrected`` by Holm over all contrasts of the run.
        better: whether ours is better, if it differs: None where nothing can be told.
    """

    task: str
    ours: str
    reference: str
    what: str
    difference: Estimate
    p: float
    corrected: float
    better: bool | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        """The comparison in a clause."""
        known = {True: "is better than", False: "is worse than", None: "cannot be told from"}
        name = self.reference if self.what == self.reference else f"{self.reference} ({self.what})"
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        span = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
        return f"{known[self.better]} {name}: {value:+.3f}{span}, p = {self.corrected:.3f}"


def best_baseline(run: RunResults, task: Task) -> str | None:
    """The method of others that was best on validation items, at its chosen setting."""
    less = task.headline in lower_is_better(run, task)
    found: dict[str, list[float]] = {}
    for point in run.curve:
        if point.task == task.name and point.chosen and task.headline in point.means:
            found.setdefault(point.contender.name, []).append(point.means[task.headline])
    means = {
        name: math.fsum(values) / len(values)
        for name, values in found.items()
        if not name.startswith(_OWN_FORMS)
    }
    if not means:
        return None
    return (min if less else max)(means, key=means.__getitem__)


def contrasts(run: RunResults, bootstrap: PairedBootstrap | None = None) -> list[DeclaredContrast]:
    """The declared contrasts of all tasks that have a headline, corrected together."""
    bootstrap = PairedBootstrap() if bootstrap is None else bootstrap
    found: list[tuple[DeclaredContrast, bool]] = []
    for task in run.plan.tasks:
        if run.is_indicative(task):
            continue
        observed = headlines(run, task)
        ours = next((name for name in _OURS if name in observed), None)
        if ours is None:
            continue
        best = best_baseline(run, task)
        parts = [(best, "best baseline"), (ONE_STEP, ONE_STEP), (CAA_ROW, CAA_ROW)]
        named: dict[str, str] = {}
        for reference, what in parts:
            if reference is not None and reference in observed:
                named.setdefault(reference, what)
        for reference, what in named.items():
            pair = {ours: observed[ours], reference: observed[reference]}
            difference = bootstrap.differences(pair)[ours, reference]
            p = p_value(observed[ours], observed[reference])
            if p is not None and difference.value is not None:
                less = task.headline in lower_is_better(run, task)
                contrast = DeclaredContrast(
                    task.name, ours, reference, what, difference, p, p, None
                )
                found.append((contrast, (difference.value > 0) is not less))
    corrected = holm({i: contrast.p for i, (contrast, _) in enumerate(found)})
    return [
        DeclaredContrast(
            **{
                **{name: getattr(contrast, name) for name in contrast.__dataclass_fields__},
                "corrected": corrected[i],
                "better": is_better if corrected[i] < LEVEL else None,
            }
        )
        for i, (contrast, is_better) in enumerate(found)
    ]


def conclusions(run: RunResults, declared: Sequence[DeclaredContrast]) -> list[str]:
    """A sentence for each task, then what its size resolves and what choosing settings adds."""
    sentences = []
    for task in run.plan.tasks:
        if run.is_indicative(task):
            reasons = "; ".join(run.gates[task.name].reasons)
            sentences.append(
                f"{task.name}: nothing can be concluded, as {task.headline} is indicative only"
                f" ({reasons})."
            )
            continue
        mine = [contrast for contrast in declared if contrast.task == task.name]
        if mine:
            clauses = "; it ".join(contrast.text for contrast in mine)
            sentences.append(f"{task.name}, {task.headline}: {mine[0].ours} {clauses}.")
        else:
            sentences.append(f"{task.name}: no contrast was declared that this run can test.")
    return sentences


def limits(run: RunResults) -> list[str]:
    """What the size of each task resolves, and how noisy the choice of settings was."""
    found = []
    for task in run.plan.tasks:
        n = len({f"{at.fold.name}/{at.item.group}" for at in run.plan.test(task)})
        text = (
            f"{task.name}: {n} prompts resolve ±{100 * resolution(n):.1f} points of a share or a"
            " win rate (paired differences less, as their spread is smaller)"
        )
        tried = [p for p in run.curve if p.task == task.name and p.setting is not None]
        errors = [p.error for p in tried if p.state == "measured" and p.error is not None]
        if errors:
            counts: dict[str, int] = {}
            for point in tried:
                counts[point.contender.name] = counts.get(point.contender.name, 0) + 1
            n_items = max(point.n for point in tried)
            middle = sorted(errors)[len(errors) // 2]
            text += (
                f"; settings were chosen among up to {max(counts.values())} a row on {n_items}"
                f" validation results, with a standard error of {middle:.3f} each: differences"
                " below it are luck, and the best figures on validation items are too good;"
                " those in the tables are of other items"
            )
        found.append(f"{text}.")
    return found
