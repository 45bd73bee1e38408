"""Summary of a finished run: means with intervals, and comparisons with references."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from odesteer.evaluation.metrics import Estimate, Observation, PairedBootstrap, wins
from odesteer.evaluation.runner import Result, RunResults
from odesteer.evaluation.runner.contenders import DEFAULT, NONE, ONE_STEP, Contender
from odesteer.evaluation.runner.results import per_item
from odesteer.evaluation.task import Task

REFERENCES = (NONE, ONE_STEP, DEFAULT)
"""The contenders that every other one is compared with."""


@dataclass
class SummaryRow:
    """One contender in one task, over all folds, seeds and test items.

    Attributes:
        settings: the chosen setting of each fold.
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


def summarize(run: RunResults, bootstrap: PairedBootstrap | None = None) -> list[SummaryRow]:
    """A row for each task and contender, in the order of the plan."""
    bootstrap = PairedBootstrap() if bootstrap is None else bootstrap
    return [line for task in run.plan.tasks for line in _of_task(run, task, bootstrap)]


def lower_is_better(run: RunResults, task: Task) -> set[str]:
    """Metrics of a task of which less is better."""
    return {*task.lower_is_better, *run.judges.lower_is_better()}


def headlines(run: RunResults, task: Task) -> dict[str, list[Observation]]:
    """The headline metric of every test item, by row."""
    scored: dict[str, list[tuple[Result, dict[str, float | None]]]] = {}
    for first, scores in per_item(r for r in run.results if r.spec.task.name == task.name):
        scored.setdefault(first.spec.contender.name, []).append((first, scores))
    if task.headline == "win_rate":
        _add_wins(scored, task.wins)
    return {name: _observations(rows, task.headline) for name, rows in scored.items()}


def _of_task(run: RunResults, task: Task, bootstrap: PairedBootstrap) -> list[SummaryRow]:
    scored: dict[str, list[tuple[Result, dict[str, float | None]]]] = {}
    results = [r for r in run.results if r.spec.task.name == task.name]
    for first, scores in per_item(results):
        scored.setdefault(first.spec.contender.name, []).append((first, scores))
    if task.wins:
        _add_wins(scored, task.wins)
    metrics = sorted({name for rows in scored.values() for _, scores in rows for name in scores})
    metrics.sort(key=lambda name: name != task.headline)
    lines = {
        contender.name: SummaryRow(
            task.name,
            contender.name,
            contender.title,
            _settings(run, task, contender),
        )
        for contender in run.plan.contenders_of(task)
    }
    for metric in metrics:
        # No steering, for one, has no win rate against itself.
        table = {
            name: _observations(rows, metric)
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
    headline = {name: _observations(rows, task.headline) for name, rows in scored.items()}
    for reference in REFERENCES:
        if reference not in headline:
            continue
        for name, observations in headline.items():
            if name != reference:
                pair = {name: observations, reference: headline[reference]}
                lines[name].against[reference] = bootstrap.differences(pair)[name, reference]
    return list(lines.values())


def _observations(
    rows: list[tuple[Result, dict[str, float | None]]], metric: str
) -> list[Observation]:
    # Two folds never test one group, and prompts of one group are not independent.
    return [
        Observation(
            f"{r.spec.fold.name}/{r.spec.item.group}",
            r.spec.seed,
            scores.get(metric),
            r.spec.item.key,
        )
        for r, scores in rows
    ]


def _add_wins(scored: dict[str, list[tuple[Result, dict[str, float | None]]]], metric: str) -> None:
    """Win rate against no steering, item by item."""
    base = {_item_key(r): scores.get(metric) for r, scores in scored.get(NONE, ())}
    for name, rows in scored.items():
        if name == NONE:
            continue
        ours = [scores.get(metric) for _, scores in rows]
        theirs = [base.get(_item_key(r)) for r, _ in rows]
        for (_, scores), won in zip(rows, wins(ours, theirs), strict=True):
            scores["win_rate"] = won


def _item_key(result: Result) -> tuple[str, int, str]:
    return result.spec.fold.name, result.spec.seed, result.spec.item.key


def _settings(run: RunResults, task: Task, contender: Contender) -> dict[str, str]:
    return {
        fold: contender.describe(setting)
        for (name, fold, of_contender), setting in sorted(
            run.choices.items(), key=lambda pair: pair[0]
        )
        if (name, of_contender) == (task.name, contender.name)
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
