"""Published figures of arXiv 2602.17560, read from ``published.csv``."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Figure:
    """A figure of a table of the paper.

    Attributes:
        table: its number.
        model: key of the model, see `odesteer.evaluation.paper.models`.
        task: name of the task, or of the task of lm-evaluation-harness in table 8.
        method: name of the row in the paper.
        metric: name of the metric here; rates are shares of 1.
        value: the figure.
        deviation: the ± that the paper prints, over three runs; None where it prints none.
    """

    table: int
    model: str
    task: str
    method: str
    metric: str
    value: float
    deviation: float | None

    def __str__(self) -> str:
        return with_deviation(self.value, self.deviation)


def with_deviation(value: float, deviation: float | None) -> str:
    """``0.632 ±0.008``, three decimals; two from 10 on."""
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
    if deviation is None:
        return text
    return f"{text} ±{deviation:.3f}" if abs(value) < 10 else f"{text} ±{deviation:.2f}"


@cache
def published() -> tuple[Figure, ...]:
    """All figures, in the order of the tables."""
    text = (resources.files(__package__) / "published.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        Figure(
            int(row["table"]),
            row["model"],
            row["task"],
            row["method"],
            row["metric"],
            float(row["value"]),
            float(row["deviation"]) if row["deviation"] else None,
        )
        for row in rows
    )


def figure(table: int, model: str, task: str, method: str, metric: str) -> Figure | None:
    """One figure; None where the paper, or our copy of its tables, has none."""
    key = (table, model, task, method, metric)
    return _by_key().get(key)


@cache
def _by_key() -> dict[tuple[int, str, str, str, str], Figure]:
    return {(f.table, f.model, f.task, f.method, f.metric): f for f in published()}
