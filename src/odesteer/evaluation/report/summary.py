"""The figures of a finished run: means with intervals, comparisons, curves."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from odesteer.evaluation.metrics import Cell, Estimate, PairedBootstrap, wins
from odesteer.evaluation.runner import Outcome, Result
from odesteer.evaluation.runner.contenders import DEFAULT, NONE, ONE_STEP, Contender
from odesteer.evaluation.runner.runner import per_item
from odesteer.evaluation.task import Task

REFERENCES = (NONE, ONE_STEP, DEFAULT)
"""What every row is compared with."""


@dataclass
class Line:
    """One contender in one task, over all folds, seeds and test items.

    Attributes:
        settings: what was chosen, for each fold.
        metrics: mean and 95 % interval of every metric; ``perplexity`` is the exponential of the
            mean ``nll``, and ``NAME-p90`` a 90th percentile.
        against: headline metric minus that of a reference, by the reference's name.
    """

    task: str
    contender: str
    title: str
    settings: dict[str, str]
    metrics: dict[str, Estimate] = field(default_factory=dict)
    against: dict[str, Estimate] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "contender": self.contender,
            "title": self.title,
            "settings": self.settings,
            "metrics": {name: asdict(value) for name, value in self.metrics.items()},
            "against": {name: asdict(value) for name, value in self.against.items()},
        }


def summarize(outcome: Outcome, bootstrap: PairedBootstrap | None = None) -> list[Line]:
    """A line for each task and contender, in the order of the plan."""
    bootstrap = PairedBootstrap() if bootstrap is None else bootstrap
    return [line for task in outcome.plan.tasks for line in _of_task(outcome, task, bootstrap)]


def lower_is_better(outcome: Outcome, task: Task) -> set[str]:
    """Metrics of a task of which less is better."""
    return {*task.lower_is_better, *outcome.bench.lower_is_better()}


def _of_task(outcome: Outcome, task: Task, bootstrap: PairedBootstrap) -> list[Line]:
    scored: dict[str, list[tuple[Result, dict[str, float | None]]]] = {}
    mine = [r for r in outcome.results if r.row.task.name == task.name]
    for first, scores in per_item(mine):
        scored.setdefault(first.row.contender.name, []).append((first, scores))
    if task.wins:
        _add_wins(scored, task.wins)
    metrics = sorted({name for rows in scored.values() for _, scores in rows for name in scores})
    metrics.sort(key=lambda name: name != task.headline)
    lines = {
        contender.name: Line(
            task.name,
            contender.name,
            contender.title,
            _settings(outcome, task, contender),
        )
        for contender in outcome.plan.contenders_of(task)
    }
    for metric in metrics:
        # No steering, for one, has no win rate against itself.
        table = {
            name: _cells(rows, metric)
            for name, rows in scored.items()
            if any(metric in scores for _, scores in rows)
        }
        for name, estimate in bootstrap.estimates(table).items():
            lines[name].metrics[metric] = estimate
        if metric in task.percentiles:
            for name, estimate in bootstrap.estimates(table, quantile=0.9).items():
                lines[name].metrics[f"{metric}-p90"] = estimate
    for line in lines.values():
        if "nll" in line.metrics and "perplexity" in line.metrics:
            line.metrics["perplexity"] = _exponential(line.metrics["nll"])
    headline = {name: _cells(rows, task.headline) for name, rows in scored.items()}
    for reference in REFERENCES:
        if reference not in headline:
            continue
        for name, cells in headline.items():
            if name != reference:
                pair = {name: cells, reference: headline[reference]}
                lines[name].against[reference] = bootstrap.differences(pair)[name, reference]
    return list(lines.values())


def _cells(rows: list[tuple[Result, dict[str, float | None]]], metric: str) -> list[Cell]:
    # Two folds never test one group, and prompts of one group are not independent.
    return [
        Cell(
            f"{r.row.fold.name}/{r.row.item.group}", r.row.seed, scores.get(metric), r.row.item.key
        )
        for r, scores in rows
    ]


def _add_wins(scored: dict[str, list[tuple[Result, dict[str, float | None]]]], metric: str) -> None:
    """Win rate against no steering, item by item."""
    base = {_at(r): scores.get(metric) for r, scores in scored.get(NONE, ())}
    for name, rows in scored.items():
        if name == NONE:
            continue
        ours = [scores.get(metric) for _, scores in rows]
        theirs = [base.get(_at(r)) for r, _ in rows]
        for (_, scores), won in zip(rows, wins(ours, theirs), strict=True):
            scores["win_rate"] = won


def _at(result: Result) -> tuple[str, int, str]:
    return result.row.fold.name, result.row.seed, result.row.item.key


def _settings(outcome: Outcome, task: Task, contender: Contender) -> dict[str, str]:
    return {
        fold: contender.said(cell)
        for (name, fold, who), cell in sorted(outcome.choices.items(), key=lambda at: at[0])
        if (name, who) == (task.name, contender.name)
    }


def _exponential(estimate: Estimate) -> Estimate:
    def exp(value: float | None) -> float | None:
        return None if value is None or value > 700 else math.exp(value)

    return Estimate(
        exp(estimate.value),
        exp(estimate.low),
        exp(estimate.high),
        estimate.n,
        estimate.n_missing,
    )
