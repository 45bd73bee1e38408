"""Report of a run beside the paper: tables as Markdown, CSV and JSON, figures as images."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odesteer.errors import DataError, MissingDependencyError
from odesteer.evaluation.paper.experiments import Experiment
from odesteer.evaluation.paper.results import Line
from odesteer.files import replace_file

HEADINGS = ("row", "setting", "metric", "published", "measured", "difference from no steering")


def cells(line: Line) -> tuple[str, ...]:
    """A line as text, in the order of `HEADINGS`."""
    difference = line.difference
    between = "–"
    if difference is not None and difference.value is not None:
        between = f"{difference.value:+.3f}"
        if difference.low is not None and difference.high is not None:
            between += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    metric = line.metric + (f" ({line.n_missing} missing)" if line.n_missing else "")
    published = "–" if line.published is None else str(line.published)
    return line.row, line.setting or "–", metric, published, line.measured_text, between


def as_markdown(
    experiment: Experiment, tables: Mapping[str, Sequence[Line]], notes: Sequence[str]
) -> str:
    """A table for each task, and the notes."""
    parts = [f"# {experiment.name} of arXiv 2602.17560: {experiment.title}", ""]
    for task, found in tables.items():
        parts += [f"## {task}", "", *_table(found), ""]
    parts += [
        "± of measured figures is the standard deviation over seeds, as in the paper; intervals"
        " are 95 %, by a bootstrap that is paired by prompt and seed.",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _table(found: Sequence[Line]) -> list[str]:
    rows = [HEADINGS, tuple("---" for _ in HEADINGS), *map(cells, found)]
    return [f"| {' | '.join(row)} |" for row in rows]


def write(
    experiment: Experiment,
    tables: Mapping[str, Sequence[Line]],
    about: Mapping[str, Any],
    notes: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Write ``paper.md``, ``paper.csv``, ``paper.json`` and, of a figure, ``paper.png``.

    Raises `DataError` if a file cannot be written.
    """
    records = [{"task": task, **line.to_json()} for task, found in tables.items() for line in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else ["task"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    content = {"experiment": experiment.name, **about, "notes": list(notes), "lines": records}
    files: dict[str, bytes] = {
        "paper.md": as_markdown(experiment, tables, notes).encode(),
        "paper.csv": text.getvalue().encode(),
        "paper.json": (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(),
    }
    if experiment.is_figure:
        files["paper.png"] = _plot(experiment, tables)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(folder / name, data)
    except OSError as error:
        raise DataError(
            f"cannot write the report into {folder}: {error.strerror or error}. All completions"
            " and scores are safe; give the same command again once that is mended."
        ) from error
    return [folder / name for name in files]


def _plot(experiment: Experiment, tables: Mapping[str, Sequence[Line]]) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "figures need matplotlib; install it with: pip install 'odesteer[plot]'"
        ) from None
    figure = Figure(figsize=(5 * max(len(tables), 1), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(len(tables), 1), squeeze=False)[0]
    for at, (task, found) in zip(axes, tables.items(), strict=False):
        metric = found[0].metric if found else ""
        own = [line for line in found if line.metric == metric and line.measured is not None]
        curve = [line for line in own if line.point is not None]
        at.plot([line.point for line in curve], [line.measured for line in curve], marker="o")
        for line in own:
            if line.point is None:
                at.axhline(line.measured, linestyle=":", color="gray", label=line.row)
                at.legend()
        at.set(xlabel=experiment.axis, ylabel=metric, title=task)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
