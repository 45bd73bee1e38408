"""Published figures beside measured ones: a line for each row, metric and setting."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.evaluation.judges import Scores
from odesteer.evaluation.metrics import Estimate, Observation, PairedBootstrap, wins
from odesteer.evaluation.paper.completions import Stored, Work
from odesteer.evaluation.paper.experiments import Experiment, Row
from odesteer.evaluation.paper.published import Figure, figure, with_deviation
from odesteer.evaluation.runner.contenders import NONE
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.evaluation.task import Task

ItemScores = dict[str, float | None]
_P90 = "-p90"


@dataclass(frozen=True)
class Line:
    """A metric of a row.

    Attributes:
        row: name of the row.
        setting: at which it is reported; "" for no steering.
        point: of a figure, where on its axis.
        metric: its name.
        measured: over all items and seeds; None if all scores are missing.
        deviation: standard deviation of the means of the seeds; None with one seed.
        difference: from no steering, with its 95 % interval; None for that row itself.
        published: the paper's figure, if it has one.
        n: scores that it is of.
        n_missing: scores that are missing.
    """

    row: str
    setting: str
    point: float | None
    metric: str
    measured: float | None
    deviation: float | None
    difference: Estimate | None
    published: Figure | None
    n: int
    n_missing: int

    @property
    def measured_text(self) -> str:
        return "–" if self.measured is None else with_deviation(self.measured, self.deviation)

    def to_json(self) -> dict[str, Any]:
        difference = self.difference
        return {
            "row": self.row,
            "setting": self.setting,
            "point": self.point,
            "metric": self.metric,
            "measured": self.measured,
            "deviation": self.deviation,
            "difference": None if difference is None else difference.value,
            "difference_low": None if difference is None else difference.low,
            "difference_high": None if difference is None else difference.high,
            "published": None if self.published is None else self.published.value,
            "published_deviation": None if self.published is None else self.published.deviation,
            "n": self.n,
            "missing": self.n_missing,
        }


def lines(
    experiment: Experiment,
    model: str,
    task: Task,
    stored: Stored,
    scores: Mapping[str, Scores],
    bootstrap: PairedBootstrap | None = None,
) -> list[Line]:
    """The lines of an experiment in one task.

    Of rows with several settings the one with the best headline on validation items is reported
    on test items; for tables that are about the choice, all are reported.
    """
    bootstrap = PairedBootstrap() if bootstrap is None else bootstrap
    metrics = experiment.metrics_of(task.name)
    reported = _reported(experiment, task, stored, scores)
    items = {i: _items(work, keys, scores) for i, (work, keys) in enumerate(reported)}
    base = next((i for i, (w, _) in enumerate(reported) if w.row.contender.name == NONE), None)
    if "win_rate" in metrics and base is not None:
        _add_wins(items, base)
    found = []
    for metric in metrics:
        name, quantile = (
            (metric.removesuffix(_P90), 0.9) if metric.endswith(_P90) else (metric, None)
        )
        source = "nll" if name == "perplexity" else name
        table = {str(i): _observations(each, source) for i, each in items.items()}
        table = {i: each for i, each in table.items() if each}
        estimates = bootstrap.estimates(table, quantile=quantile)
        for i, (work, _) in enumerate(reported):
            if str(i) not in table:
                continue
            own = estimates[str(i)]
            difference = None
            if base is not None and i != base and str(base) in table and name != "win_rate":
                pair = {str(i): table[str(i)], str(base): table[str(base)]}
                difference = bootstrap.differences(pair, quantile=quantile)[str(i), str(base)]
            value, deviation = own.value, _deviation(table[str(i)], quantile)
            if source == "nll" and value is not None:
                value = math.exp(min(value, 700.0))
                deviation = None if deviation is None else value * deviation
            found.append(
                Line(
                    work.row.name,
                    "" if work.setting is None else str(work.setting),
                    work.row.point,
                    metric,
                    value,
                    deviation,
                    difference,
                    _published(experiment, model, task.name, work.row.published, metric),
                    own.n,
                    own.n_missing,
                )
            )
    return found


def speeds(model: str, rows: Sequence[Row], stored: Stored) -> list[Line]:
    """Tokens a second of each row, of what was generated in this run; None for the rest."""
    found = []
    for row in rows:
        seconds, n_tokens = stored.seconds.get(row.name, 0.0), stored.tokens.get(row.name, 0)
        found.append(
            Line(
                row.name,
                str(row.settings[0]) if row.settings else "",
                None,
                "tokens_per_second",
                n_tokens / seconds if seconds else None,
                None,
                None,
                figure(7, model, "truthfulqa", row.published, "tokens_per_second"),
                n_tokens,
                0,
            )
        )
    return found


def _reported(
    experiment: Experiment, task: Task, stored: Stored, scores: Mapping[str, Scores]
) -> list[tuple[Work, list[str]]]:
    by_row: dict[str, list[tuple[Work, list[str]]]] = {}
    for work, keys in stored.work:
        by_row.setdefault(work.row.name, []).append((work, keys))
    found = []
    for each in by_row.values():
        validated = [(w, keys) for w, keys in each if w.phase == "validation"]
        tested = [(w, keys) for w, keys in each if w.phase == "test"]
        if not (validated and tested):
            found += each
            continue
        sign = -1 if task.headline in task.lower_is_better else 1
        means = [
            sign * _mean(scores[key].get(task.headline) for key in keys) for _, keys in validated
        ]
        # Of equal ones the first: the least steering.
        best = validated[means.index(max(means))][0].setting
        found += [(w, keys) for w, keys in tested if w.setting == best]
    return found


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else -math.inf


def _items(
    work: Work, keys: Sequence[str], scores: Mapping[str, Scores]
) -> list[tuple[CompletionSpec, ItemScores]]:
    """The metrics of each item, its samples combined."""
    grouped: dict[tuple[str, int, str], list[tuple[CompletionSpec, Scores]]] = {}
    for spec, key in zip(work.specs, keys, strict=True):
        group = (spec.fold.name, spec.seed, spec.item.key)
        grouped.setdefault(group, []).append((spec, scores[key]))
    return [
        (each[0][0], dict(each[0][0].task.combined([one for _, one in each])))
        for each in grouped.values()
    ]


def _observations(
    items: Sequence[tuple[CompletionSpec, ItemScores]], metric: str
) -> list[Observation]:
    return [
        Observation(f"{s.fold.name}/{s.item.group}", s.seed, one[metric], s.item.key)
        for s, one in items
        if metric in one
    ]


def _deviation(observations: Sequence[Observation], quantile: float | None) -> float | None:
    """Standard deviation over seeds, as the paper prints it."""
    by_seed: dict[int, list[float]] = {}
    for each in observations:
        if each.value is not None:
            by_seed.setdefault(each.seed, []).append(each.value)
    figures = [
        statistics.fmean(values) if quantile is None else _quantile(values, quantile)
        for values in by_seed.values()
    ]
    return statistics.stdev(figures) if len(figures) > 1 else None


def _quantile(values: Sequence[float], share: float) -> float:
    import numpy as np

    return float(np.quantile(values, share))


def _add_wins(items: Mapping[int, list[tuple[CompletionSpec, ItemScores]]], base: int) -> None:
    """Wins of the reward against no steering, item by item, ties a half."""

    def key(spec: CompletionSpec) -> tuple[str, int, str]:
        return spec.fold.name, spec.seed, spec.item.key

    theirs = {key(spec): one.get("reward") for spec, one in items[base]}
    for each in items.values():
        ours = [one.get("reward") for _, one in each]
        against = [theirs.get(key(spec)) for spec, _ in each]
        for (_, one), won in zip(each, wins(ours, against), strict=True):
            one["win_rate"] = won


def _published(
    experiment: Experiment, model: str, task: str, row: str, metric: str
) -> Figure | None:
    if not row or experiment.is_figure:
        return None
    own = figure(experiment.number, model, task, row, metric)
    # Tables 3, 6 and 9 share rows with table 2.
    return own or figure(2, model, task, row, metric)
