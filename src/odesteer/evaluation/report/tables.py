"""Tables of a run as JSON, CSV and Markdown: the same bytes for the same results."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from odesteer.evaluation.metrics import Estimate
from odesteer.evaluation.report.summary import REFERENCES, Line, lower_is_better
from odesteer.evaluation.runner import Outcome
from odesteer.evaluation.runner.selection import Point
from odesteer.evaluation.task import Task


def as_json(outcome: Outcome, lines: Sequence[Line], about: dict[str, Any]) -> str:
    """Everything, for programs."""
    tasks = [
        {
            "name": task.name,
            "title": task.title,
            "version": task.version,
            "source": task.source,
            "differences": list(task.differences),
            "changelog": list(task.changelog),
            "headline": task.headline,
            "lower_is_better": sorted(lower_is_better(outcome, task)),
            "judges": outcome.bench.of(task),
            "layers": list(outcome.plan.layers[task.name].first),
        }
        for task in outcome.plan.tasks
    ]
    document = {
        "about": about,
        "tasks": tasks,
        "seeds": list(outcome.plan.seeds),
        "judges": outcome.bench.about(),
        "unavailable_judges": outcome.bench.unavailable,
        "left_out": outcome.plan.left_out,
        "truncated": outcome.truncated(),
        "failures": outcome.failures(),
        "lines": [line.to_json() for line in lines],
        "curve": [point.to_json() for point in outcome.curve],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(lines: Sequence[Line]) -> str:
    """A row for each task, contender and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = ["value", "low", "high", "n", "missing"]
    writer.writerow(["task", "contender", "setting", "metric", "against", *figures])
    for line in lines:
        setting = _setting(line)
        for metric, estimate in line.metrics.items():
            writer.writerow([line.task, line.contender, setting, metric, "", *_figures(estimate)])
        for reference, estimate in line.against.items():
            writer.writerow(
                [line.task, line.contender, setting, "headline", reference, *_figures(estimate)]
            )
    return out.getvalue()


def curve_csv(curve: Sequence[Point]) -> str:
    """A row for each setting that was tried on validation items."""
    metrics = sorted({name for point in curve for name in point.means})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["task", "fold", "contender", "variant", "layer", "quantity", "value", "n", "missing"]
    names += ["state", "chosen"]
    writer.writerow([*names, *metrics])
    for point in curve:
        row = point.to_json()
        fixed = [row.get(name) for name in names]
        values = [_digits(point.means.get(name)) for name in metrics]
        writer.writerow(["" if value is None else value for value in (*fixed, *values)])
    return out.getvalue()


def as_markdown(outcome: Outcome, lines: Sequence[Line], title: str) -> str:
    """A table for each task, for people."""
    parts = [f"# {title}\n"]
    for task in outcome.plan.tasks:
        mine = [line for line in lines if line.task == task.name]
        parts += [f"## {task.name}\n", f"{task.title}. Version {task.version}, {task.source}.\n"]
        parts += [f"- {text}" for text in task.differences]
        parts += ["", *table(outcome, task, mine), ""]
        judges = outcome.bench.about()
        parts += [f"- {said(name, judges[name])}" for name in outcome.bench.of(task)]
        parts.append("")
    for name, n in outcome.plan.left_out.items():
        parts.append(f"{name}: {n} texts are longer than the model's context and left out.\n")
    for name, n in outcome.truncated().items():
        parts.append(f"{name}: {n} prompts lost their beginning to the model's context.\n")
    parts += [f"Not possible: {failure}\n" for failure in outcome.failures()]
    for name, reason in sorted(outcome.bench.unavailable.items()):
        parts.append(f"Not judged by {name}: {reason}\n")
    parts.append(
        "Means over prompts and seeds with 95 % paired-bootstrap intervals. Settings were chosen"
        " on validation items, the same for all seeds of a fold. Missing scores are left out of"
        " the means and counted.\n"
    )
    return "\n".join(parts)


def table(outcome: Outcome, task: Task, lines: Sequence[Line]) -> list[str]:
    """Rows of a Markdown table, the best headline first below the baselines."""
    shown = [name for name in columns(lines) if name != "nll"]
    references = compared(lines)
    head = ["", "setting", *(f"**{n}**" if n == task.headline else n for n in shown)]
    head += [f"{task.headline} − {reference}" for reference in references] + ["missing"]
    rows = [head, ["---"] * len(head)]
    for line in ordered(outcome, task, lines):
        cells = [line.contender, _setting(line) or "–"]
        cells += [interval(line.metrics.get(name)) for name in shown]
        cells += [interval(line.against.get(name), signed=True) for name in references]
        headline = line.metrics.get(task.headline)
        cells.append("all" if headline is None or not headline.n else str(headline.n_missing))
        rows.append(cells)
    return [f"| {' | '.join(row)} |" for row in rows]


def ordered(outcome: Outcome, task: Task, lines: Sequence[Line]) -> list[Line]:
    """Baselines as they stand, then methods by their headline metric."""
    sign = 1.0 if task.headline in lower_is_better(outcome, task) else -1.0

    def place(line: Line) -> tuple[bool, float]:
        estimate = line.metrics.get(task.headline)
        value = None if estimate is None else estimate.value
        return (bool(line.settings), float("inf") if value is None else sign * value)

    fixed = [line for line in lines if not line.settings]
    return fixed + sorted((line for line in lines if line.settings), key=place)


def compared(lines: Sequence[Line]) -> list[str]:
    """The references that these lines are compared with."""
    return [name for name in REFERENCES if any(name in line.against for line in lines)]


def columns(lines: Sequence[Line]) -> list[str]:
    """Metrics, the headline first."""
    return list(dict.fromkeys(name for line in lines for name in line.metrics))


def interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A mean with its interval, or what stands for none."""
    if estimate is None or estimate.value is None:
        return "–" if estimate is None or not estimate.n_missing else "missing"
    form = "+.3f" if signed else ".3f"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def said(name: str, about: dict[str, Any]) -> str:
    """A judge in a line, with how well it judges."""
    facts = ", ".join(f"{key} {_fact(value)}" for key, value in about.items() if key != "what")
    return f"judge {name}: {about.get('what', '')} ({facts})"


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return "; ".join(f"{key} {_fact(inner)}" for key, inner in value.items())
    return str(value)


def _setting(line: Line) -> str:
    settings = list(dict.fromkeys(line.settings.values()))
    if len(settings) <= 1:
        return "".join(settings)
    return "; ".join(f"{fold}: {setting}" for fold, setting in line.settings.items())


def _figures(estimate: Estimate) -> list[Any]:
    values = (estimate.value, estimate.low, estimate.high)
    return [*map(_digits, values), estimate.n, estimate.n_missing]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
