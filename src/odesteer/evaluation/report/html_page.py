"""The HTML report: one self-contained file."""

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

from odesteer.evaluation.report.conclusions import DeclaredContrast, conclusions, limits
from odesteer.evaluation.report.summary import SummaryRow
from odesteer.evaluation.report.tables import columns, compared, interval, judge_text, ordered
from odesteer.evaluation.runner import Result, RunResults
from odesteer.evaluation.task import Task

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}
td,pre,li{overflow-wrap:anywhere} pre{white-space:pre-wrap} .lead{font-size:1.1rem}
td:nth-child(n+3):not(.t){white-space:nowrap}
th:first-child,td:first-child,td.t,th.t{text-align:left}
td.t{white-space:pre-wrap;max-width:34rem}
img{max-width:100%} .dim{color:#777} code{background:#f4f4f4}
"""
_N_EXAMPLES = 3
_MOST_COLUMNS = 5  # with intervals, beside the row's name, on a screen of 1,280 pixels


def page(
    run: RunResults,
    lines: Sequence[SummaryRow],
    images: Sequence[tuple[str, str, bytes]],
    *,
    title: str,
    about: dict[str, Any],
    environment: dict[str, Any],
    times: Sequence[dict[str, Any]],
    opening: str = "",
    declared: Sequence[DeclaredContrast] = (),
) -> str:
    """The whole report: conclusions, ``opening`` (HTML: effects at equal cost), tasks, the rest."""
    parts = [f"<h1>{_escape(title)}</h1>"]
    parts += [f'<p class="lead">{_escape(text)}</p>' for text in conclusions(run, declared)]
    parts.append(opening)
    for task in run.plan.tasks:
        mine = [line for line in lines if line.task == task.name]
        parts.append(f"<h2>{_escape(task.name)}</h2><p>{_escape(task.title)}.")
        parts.append(f" Version {_escape(task.version)}; {_escape(task.source)}.</p>")
        if task.differences:
            parts.append(_list(task.differences))
        rows = ordered(run, task, mine)
        parts.append(_headline(run, task, rows))
        parts += _others(task, rows)
        if task.name in run.gates:
            parts.append(f"<p>{_escape(run.gates[task.name].text)}</p>")
        about_judges = run.judges.about()
        parts.append(_list([judge_text(n, about_judges[n]) for n in run.judges.of(task)]))
        for name, caption, png in images:
            if name.removesuffix(".png").partition("-")[2] == task.name:
                data = base64.b64encode(png).decode()
                parts.append(
                    f'<figure><img alt="{_escape(caption)}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{_escape(caption)}</figcaption></figure>"
                )
        examples = [r for r in run.results if r.spec.task.name == task.name]
        parts.append(_examples(examples))
    if run.failures():
        parts += ["<h2>What was not possible</h2>", _list(run.failures())]
    if run.judges.unavailable:
        parts.append("<h2>Judges that could not work here</h2>")
        parts.append(_list([f"{n}: {reason}" for n, reason in run.judges.unavailable.items()]))
    parts.append("<h2>Time</h2>" + _times(times))
    parts.append("<h2>What the sizes resolve</h2>" + _list([*limits(run), *run.notes()]))
    parts.append("<h2>How it was made</h2><pre>")
    run_facts = {"configuration": about, "environment": environment}
    parts.append(_escape(json.dumps(run_facts, indent=1, ensure_ascii=False)) + "</pre>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _headline(run: RunResults, task: Task, lines: Sequence[SummaryRow]) -> str:
    """The headline metric of every row, and its differences from the references."""
    references = compared(lines)
    name = f"{task.headline} (indicative)" if run.is_indicative(task) else task.headline
    head = ["", "setting", name, *(f"− {reference}" for reference in references), "missing"]
    rows = []
    for line in lines:
        estimate = line.metrics.get(task.headline)
        cells = [line.contender, "; ".join(dict.fromkeys(line.settings.values()))]
        cells.append(interval(estimate))
        cells += [interval(line.against.get(name), signed=True) for name in references]
        cells.append("" if estimate is None else str(estimate.n_missing))
        rows.append(cells)
    return _table(head, rows)


def _others(task: Task, lines: Sequence[SummaryRow]) -> list[str]:
    """Tables of the other metrics, no wider than a screen."""
    shown = [name for name in columns(lines) if name not in ("nll", task.headline)]
    # What fluency costs comes before everything else.
    shown.sort(key=lambda name: name != "perplexity")
    found = []
    for start in range(0, len(shown), _MOST_COLUMNS):
        part = shown[start : start + _MOST_COLUMNS]
        rows = [
            [line.contender, "", *(interval(line.metrics.get(name)) for name in part)]
            for line in lines
        ]
        found.append(_table(["", "", *part], rows))
    return found


def _examples(results: Sequence[Result]) -> str:
    """A table of every contender's completions of the first prompts."""
    keys = list(dict.fromkeys((r.spec.fold.name, r.spec.seed, r.spec.item.key) for r in results))
    rows = []
    for key in keys[:_N_EXAMPLES]:
        mine = [
            r
            for r in results
            if (r.spec.fold.name, r.spec.seed, r.spec.item.key) == key and not r.spec.sample
        ]
        for i, result in enumerate(mine):
            scores = ", ".join(
                f"{n} {'missing' if v is None else f'{v:.3g}'}" for n, v in result.scores.items()
            )
            text = str(result.completion.get("text", ""))
            rows.append(
                [result.spec.item.text if not i else "", result.spec.contender.name, text, scores]
            )
    if not rows:
        return ""
    table = _table(["prompt", "", "completion", "scores"], rows, text=True)
    return f"<details><summary>examples</summary>{table}</details>"


def _times(times: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            one["contender"],
            str(one["completions"]),
            f"{one['seconds']:.1f}",
            f"{one['tokens_per_second']:.0f}" if one["tokens_per_second"] else "",
        ]
        for one in times
    ]
    return _table(["", "completions", "seconds", "tokens a second"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    mark = ' class="t"' if text else ""
    cells = "".join(f"<th{mark}>{_escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{_escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>\n{body}</table>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_escape(line)}</li>" for line in lines) + "</ul>"


def _escape(text: str) -> str:
    return html.escape(text)
