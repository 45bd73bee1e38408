"""Tables of a run as JSON, CSV and Markdown; the same results give the same bytes."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from odesteer.evaluation.metrics import Estimate
from odesteer.evaluation.report.conclusions import DeclaredContrast, conclusions, limits
from odesteer.evaluation.report.summary import REFERENCES, SummaryRow, lower_is_better
from odesteer.evaluation.runner import RunResults
from odesteer.evaluation.runner.selection import CurvePoint
from odesteer.evaluation.task import Task


def as_json(
    run: RunResults,
    lines: Sequence[SummaryRow],
    about: dict[str, Any],
    declared: Sequence[DeclaredContrast] = (),
) -> str:
    """All results as JSON, for programs."""
    tasks = [
        {
            "name": task.name,
            "title": task.title,
            "version": task.version,
            "source": task.source,
            "differences": list(task.differences),
            "changelog": list(task.changelog),
            "headline": task.headline,
            "lower_is_better": sorted(lower_is_better(run, task)),
            "judges": run.judges.of(task),
            "layers": list(run.plan.layers[task.name].first),
        }
        for task in run.plan.tasks
    ]
    document = {
        "about": about,
        "tasks": tasks,
        "seeds": list(run.plan.seeds),
        "judges": run.judges.about(),
        "unavailable_judges": run.judges.unavailable,
        "left_out": run.plan.left_out,
        "truncated": run.truncated(),
        "gates": {name: gate.to_json() for name, gate in run.gates.items()},
        "notes": run.notes(),
        "failures": run.failures(),
        "conclusions": conclusions(run, declared),
        "contrasts": [contrast.to_json() for contrast in declared],
        "limits": limits(run),
        "lines": [line.to_json() for line in lines],
        "curve": [point.to_json() for point in run.curve],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(lines: Sequence[SummaryRow]) -> str:
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


def curve_csv(curve: Sequence[CurvePoint]) -> str:
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


def as_markdown(
    run: RunResults,
    lines: Sequence[SummaryRow],
    title: str,
    declared: Sequence[DeclaredContrast] = (),
) -> str:
    """What can be concluded, then a table for each task, the judges and what was left out."""
    parts = [f"# {title}\n", *(f"{text}\n" for text in conclusions(run, declared))]
    for task in run.plan.tasks:
        mine = [line for line in lines if line.task == task.name]
        parts += [f"## {task.name}\n", f"{task.title}. Version {task.version}, {task.source}.\n"]
        parts += [f"- {text}" for text in task.differences]
        parts += ["", *table(run, task, mine), ""]
        judges = run.judges.about()
        parts += [f"- {judge_text(name, judges[name])}" for name in run.judges.of(task)]
        parts.append("")
    for name, n in run.plan.left_out.items():
        parts.append(f"{name}: {n} texts are longer than the model's context and left out.\n")
    for name, n in run.truncated().items():
        parts.append(f"{name}: {n} prompts lost their beginning to the model's context.\n")
    parts += [f"{note}.\n" for note in run.notes()]
    parts += [f"Not possible: {failure}\n" for failure in run.failures()]
    for name, reason in sorted(run.judges.unavailable.items()):
        parts.append(f"Not judged by {name}: {reason}\n")
    parts.append(
        "Means over prompts and seeds with 95 % intervals over prompts (BCa, exact where almost all"
        " scores are alike). p-values of declared contrasts are of sign flips by prompt, corrected"
        " by Holm over all of the run. Settings were chosen"
        " on validation items, the same for all seeds of a fold. Missing scores are left out of"
        " the means and counted.\n"
    )
    parts += [f"{text}\n" for text in limits(run)]
    return "\n".join(parts)


def table(run: RunResults, task: Task, lines: Sequence[SummaryRow]) -> list[str]:
    """Rows of a Markdown table, the best headline first below the baselines."""
    shown = [name for name in columns(lines) if name != "nll"]
    references = compared(lines)
    bold = f"{task.headline} (indicative)" if run.is_indicative(task) else f"**{task.headline}**"
    head = ["", "setting", *(bold if n == task.headline else n for n in shown)]
    head += [f"{task.headline} − {reference}" for reference in references] + ["missing"]
    rows = [head, ["---"] * len(head)]
    for line in ordered(run, task, lines):
        cells = [line.contender, _setting(line) or "–"]
        cells += [interval(line.metrics.get(name)) for name in shown]
        cells += [interval(line.against.get(name), signed=True) for name in references]
        headline = line.metrics.get(task.headline)
        cells.append("all" if headline is None or not headline.n else str(headline.n_missing))
        rows.append(cells)
    return [f"| {' | '.join(row)} |" for row in rows]


def ordered(run: RunResults, task: Task, lines: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Baselines in their order, then methods by their headline metric."""
    sign = 1.0 if task.headline in lower_is_better(run, task) else -1.0

    def sort_key(line: SummaryRow) -> tuple[bool, float]:
        estimate = line.metrics.get(task.headline)
        value = None if estimate is None else estimate.value
        return (bool(line.settings), float("inf") if value is None else sign * value)

    fixed = [line for line in lines if not line.settings]
    return fixed + sorted((line for line in lines if line.settings), key=sort_key)


def compared(lines: Sequence[SummaryRow]) -> list[str]:
    """The references that these rows are compared with."""
    return [name for name in REFERENCES if any(name in line.against for line in lines)]


def columns(lines: Sequence[SummaryRow]) -> list[str]:
    """Metrics, the headline first."""
    return list(dict.fromkeys(name for line in lines for name in line.metrics))


def interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A mean with its interval as text; a dash or "missing" without one."""
    if estimate is None or estimate.value is None:
        return "–" if estimate is None or not estimate.n_missing else "missing"
    form = "+.3f" if signed else ".3f"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def judge_text(name: str, about: dict[str, Any]) -> str:
    """A line about a judge, with its measured quality."""
    facts = ", ".join(f"{key} {_fact(value)}" for key, value in about.items() if key != "what")
    return f"judge {name}: {about.get('what', '')} ({facts})"


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return "; ".join(f"{key} {_fact(inner)}" for key, inner in value.items())
    return str(value)


def _setting(line: SummaryRow) -> str:
    settings = list(dict.fromkeys(line.settings.values()))
    if len(settings) <= 1:
        return "".join(settings)
    return "; ".join(f"{fold}: {setting}" for fold, setting in line.settings.items())


def _figures(estimate: Estimate) -> list[Any]:
    values = (estimate.value, estimate.low, estimate.high)
    return [*map(_digits, values), estimate.n, estimate.n_missing]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
