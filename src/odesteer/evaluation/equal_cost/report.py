"""Report of a comparison at equal cost: JSON, a Markdown table for each task, and its curves."""

import base64
import html
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from odesteer.errors import DataError
from odesteer.evaluation.equal_cost.comparison import EqualCostComparison
from odesteer.evaluation.equal_cost.curve import CostCurve, MeasuredAmount, mean
from odesteer.evaluation.metrics import Estimate, PairedBootstrap
from odesteer.evaluation.runner import Plan
from odesteer.evaluation.task import Task
from odesteer.files import replace_file

REFERENCES = ("caa", "one-step")
"""Rows that every other one is compared with at equal cost: declared beforehand."""

NAME = "equal-cost"


@dataclass
class EqualCostRow:
    """One row at equal cost.

    Attributes:
        effects: the gain over the unsteered model at each target, with its interval; without a
            value where the method does not reach that cost.
        against: the same less that of a reference, item by item, by the reference's name.
        curve: cost, amount and mean gain of every amount that was measured.
    """

    task: str
    contender: str
    title: str
    effects: dict[float, Estimate]
    against: dict[str, dict[float, Estimate]] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "contender": self.contender,
            "title": self.title,
            "effects": {f"{kl:g}": asdict(value) for kl, value in self.effects.items()},
            "against": {
                name: {f"{kl:g}": asdict(value) for kl, value in found.items()}
                for name, found in self.against.items()
            },
            "curve": self.curve,
            "failures": self.failures,
        }


def rows_of(
    curves: Sequence[CostCurve],
    targets: Sequence[float],
    bootstrap: PairedBootstrap | None = None,
) -> list[EqualCostRow]:
    """The rows of a comparison, in the order of the curves."""
    bootstrap = PairedBootstrap() if bootstrap is None else bootstrap
    found: list[EqualCostRow] = []
    for task in dict.fromkeys(curve.task for curve in curves):
        mine = {curve.contender: curve for curve in curves if curve.task == task}
        rows = {
            name: EqualCostRow(task, name, c.title, {}, failures=c.failures, curve=_points(c))
            for name, c in mine.items()
        }
        for kl in targets:
            observed = {n: c.observations(kl) for n, c in mine.items() if c.reaches(kl)}
            observed = {n: list(o) for n, o in observed.items() if mine[n].is_dialled}
            for name, estimate in bootstrap.estimates(observed).items():
                rows[name].effects[kl] = estimate
            for reference in REFERENCES:
                for name in observed:
                    if reference in observed and name != reference:
                        pair = {name: observed[name], reference: observed[reference]}
                        difference = bootstrap.differences(pair)[name, reference]
                        rows[name].against.setdefault(reference, {})[kl] = difference
        found += rows.values()
    return found


def write_equal_cost(
    comparison: EqualCostComparison,
    curves: Sequence[CostCurve],
    plan: Plan,
    folder: Path,
    *,
    title: str,
    about: Mapping[str, Any],
) -> list[EqualCostRow]:
    """Write ``equal-cost.json``, ``.md`` and, with matplotlib, a plot of each task.

    The files depend on the measurements alone. Raises `DataError` if one cannot be written.
    """
    rows = rows_of(curves, comparison.targets)
    unsteered = {task.name: mean(comparison.unsteered(task)) for task in plan.tasks}
    document = {
        "about": dict(about),
        "kl": list(comparison.targets),
        "references": list(REFERENCES),
        "seeds": list(plan.seeds),
        "unsteered": unsteered,
        "side_effects_unsteered": comparison.side_effects_unsteered,
        "tasks": {
            task.name: {
                "title": task.title,
                "headline": task.headline,
                "less_is_better": comparison.is_less_better(task),
                "layers": list(plan.layers[task.name].first),
                "differences": list(task.differences),
                "source": task.source,
                "gate": comparison.gates[task.name].to_json()
                if task.name in comparison.gates
                else None,
                "folds": [_sizes(fold) for fold in plan.folds[task.name, plan.seeds[0]]],
            }
            for task in plan.tasks
        },
        "rows": [row.to_json() for row in rows],
    }
    files = {
        f"{NAME}.json": json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        f"{NAME}.md": _markdown(comparison, plan, rows, unsteered, title),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text.encode())
        for task in plan.tasks:
            png = _plot(task, [row for row in rows if row.task == task.name])
            if png is not None:
                replace_file(folder / f"{NAME}-{task.name}.png", png)
    except OSError as error:
        raise DataError(
            f"cannot write the comparison into {folder}: {error.strerror or error}. All that was"
            " measured is safe; give the same command again once that is mended."
        ) from error
    return rows


def ordered(rows: Sequence[EqualCostRow], kl: float, *, less_is_better: bool) -> list[EqualCostRow]:
    """The best effect at a cost first; rows that do not reach it last."""

    def key(row: EqualCostRow) -> tuple[bool, float]:
        estimate = row.effects.get(kl)
        value = None if estimate is None else estimate.value
        return value is None, 0.0 if value is None else (value if less_is_better else -value)

    return sorted(rows, key=key)


def cells_of(
    rows: Sequence[EqualCostRow], targets: Sequence[float], *, less_is_better: bool
) -> list[list[str]]:
    """The head and the rows of a table, the best at the middle target first."""
    middle = targets[len(targets) // 2]
    references = [r for r in REFERENCES if any(r in row.against for row in rows)]
    head = ["row", *(f"effect at KL {kl:g}" for kl in targets)]
    head += [f"less {name} at {middle:g}" for name in references]
    head += [f"amount at {middle:g}", "neutral perplexity", "unrelated questions"]
    lines = [head]
    for row in ordered(rows, middle, less_is_better=less_is_better):
        near = _nearest(row, middle)
        cells = [row.contender, *effects_of(row, targets)]
        differences = [row.against.get(name, {}).get(middle) for name in references]
        cells += ["" if each is None else interval(each) for each in differences]
        amounts = sorted({f"{p['amount']}, layer {p['layer']}" for p in _all_near(row, middle)})
        cells.append("; ".join(amounts) if row.effects else "")
        cells += [_figure(near, name) for name in ("neutral_perplexity", "unrelated_mc")]
        lines.append(cells)
    return lines


def table(
    rows: Sequence[EqualCostRow], targets: Sequence[float], *, less_is_better: bool
) -> list[str]:
    """Rows of a Markdown table, the best at the middle target first."""
    head, *body = cells_of(rows, targets, less_is_better=less_is_better)
    lines = [head, ["---"] * len(head), *([f"`{name}`", *rest] for name, *rest in body)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def html_section(
    comparison: EqualCostComparison, plan: Plan, rows: Sequence[EqualCostRow], folder: Path
) -> str:
    """HTML that opens the report of the run: conclusion, table and curves of each task."""
    parts = ["<h2>Effect at equal cost</h2>"]
    for task in plan.tasks:
        mine = [row for row in rows if row.task == task.name]
        less = comparison.is_less_better(task)
        told = conclusion(mine, comparison.targets, less_is_better=less).replace("`", "")
        base = mean(comparison.unsteered(task))
        parts.append(f"<h3>{html.escape(task.name)}</h3><p><b>{html.escape(told)}</b></p>")
        parts.append(
            f"<p>Gain in {html.escape(task.headline)} over the unsteered model"
            f" ({'missing' if base is None else f'{base:.3f}'})"
            f"{'; less is better' if less else ''}."
            " Cost is KL(unsteered ‖ steered) on neutral text, nats a token.</p>"
        )
        if task.name in comparison.gates:
            parts.append(f"<p>{html.escape(comparison.gates[task.name].text)}</p>")
        head, *body = cells_of(mine, comparison.targets, less_is_better=less)
        lines = [_html_row("th", head), *(_html_row("td", cells) for cells in body)]
        parts.append(f'<div class="wide"><table>{"".join(lines)}</table></div>')
        image = folder / f"{NAME}-{task.name}.png"
        if image.is_file():
            data = base64.b64encode(image.read_bytes()).decode()
            alt = html.escape(f"effect against cost in {task.name}")
            parts.append(f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>')
    return "\n".join(parts)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def conclusion(
    rows: Sequence[EqualCostRow], targets: Sequence[float], *, less_is_better: bool
) -> str:
    """What can be concluded at the middle cost, in a sentence or two."""
    kl = targets[len(targets) // 2]
    best = ordered(rows, kl, less_is_better=less_is_better)[:1]
    if not best or kl not in best[0].effects:
        return f"No row was measured at KL {kl:g}."
    row, effect = best[0], best[0].effects[kl]
    clear = _is_clear(effect, less_is_better=less_is_better)
    text = (
        f"At KL {kl:g} `{row.contender}` gains the most of"
        f" {sum(kl in each.effects for each in rows)} rows, {interval(effect)}"
        f"{'' if clear else ', which is not clearly more than nothing'}."
    )
    for name, found in row.against.items():
        if kl in found:
            apart = _is_clear(found[kl], less_is_better=less_is_better)
            text += (
                f" Its lead over `{name}` is {interval(found[kl])}:"
                f" {'clear' if apart else 'not clear'}."
            )
    return text


def _is_clear(estimate: Estimate, *, less_is_better: bool) -> bool:
    """Whether the whole interval lies on the better side of 0."""
    if estimate.low is None or estimate.high is None:
        return False
    return estimate.high < 0 if less_is_better else estimate.low > 0


def effects_of(row: EqualCostRow, targets: Sequence[float]) -> list[str]:
    """The effect at each target as text; of a prompt the effect at its own cost."""
    near = _nearest(row, targets[len(targets) // 2])
    is_prompt = near is not None and near["layer"] is None
    if near is not None and is_prompt and near["gain"] is not None:
        return [f"{near['gain']:+.3f} at KL {near['kl']:.3f}", *[""] * (len(targets) - 1)]
    if row.failures and not row.curve:
        return ["not possible", *[""] * (len(targets) - 1)]
    return [interval(row.effects.get(kl)) for kl in targets]


def interval(estimate: Estimate | None) -> str:
    """A signed mean with its interval; "not reached" without one."""
    if estimate is None or estimate.value is None:
        return "not reached"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _markdown(
    comparison: EqualCostComparison,
    plan: Plan,
    rows: Sequence[EqualCostRow],
    unsteered: Mapping[str, float | None],
    title: str,
) -> str:
    parts = [f"# {title}: effect at equal cost\n"]
    for task in plan.tasks:
        mine = [row for row in rows if row.task == task.name]
        less = comparison.is_less_better(task)
        base = unsteered[task.name]
        parts.append(f"## {task.name}\n")
        parts.append(
            f"{task.title}. Gain in `{task.headline}` over the unsteered model"
            f" ({'missing' if base is None else f'{base:.3f}'})"
            f"{'; less is better' if less else ''}. {task.source}.\n"
        )
        if task.name in comparison.gates:
            parts.append(f"{comparison.gates[task.name].text}.\n")
        parts.append(f"{conclusion(mine, comparison.targets, less_is_better=less)}\n")
        parts += [*table(mine, comparison.targets, less_is_better=less), ""]
        for row in mine:
            parts += [f"Not possible: `{row.contender}`, {text}\n" for text in row.failures]
    parts.append(
        "Cost is KL(unsteered ‖ steered) on neutral text, nats a token. Effects are interpolated"
        " linearly in √KL between measured amounts; intervals are of a paired bootstrap over test"
        " items and do not cover the error of the cost. Not reached: the method costs less than"
        " that at its largest amount.\n"
    )
    return "\n".join(parts)


def _points(curve: CostCurve) -> list[dict[str, Any]]:
    return [
        {
            "fold": segment.fold,
            "seed": segment.seed,
            "amount": point.amount,
            "layer": point.layer,
            "kl": point.kl,
            "kl_error": point.kl_error,
            "value": mean(list(point.values.values())),
            "gain": mean(list(point.gains.values())),
            **point.side_effects,
        }
        for segment in curve.segments
        for point in sorted(segment.points, key=_kl)
    ]


def _kl(point: MeasuredAmount) -> float:
    return point.kl


def _all_near(row: EqualCostRow, kl: float) -> list[dict[str, Any]]:
    """The point nearest to a cost in each fold and seed."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for point in row.curve:
        key = point["fold"], point["seed"]
        if key not in found or abs(point["kl"] - kl) < abs(found[key]["kl"] - kl):
            found[key] = point
    return list(found.values())


def _nearest(row: EqualCostRow, kl: float) -> dict[str, Any] | None:
    return min(row.curve, key=lambda point: abs(point["kl"] - kl), default=None)


def _figure(point: Mapping[str, Any] | None, name: str) -> str:
    value = None if point is None else point.get(name)
    return "" if value is None else f"{value:.3f}"


def _sizes(fold: Any) -> dict[str, Any]:
    return {
        "name": fold.name,
        "fit": len(fold.fit),
        "validation": len(fold.validation),
        "test": len(fold.test),
        "data": fold.digest,
    }


def _plot(task: Task, rows: Sequence[EqualCostRow]) -> bytes | None:
    """Effect against cost of every row; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn(
            "no curves were drawn: install matplotlib with: pip install 'odesteer[plot]'",
            stacklevel=2,
        )
        return None
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    markers = "os^vDPX*<>ph"
    for i, row in enumerate(rows):
        points = [p for p in row.curve if p["gain"] is not None]
        if not points:
            continue
        first = points[0]["fold"], points[0]["seed"]
        mine = [p for p in points if (p["fold"], p["seed"]) == first]
        costs = [0.0, *(p["kl"] for p in mine)]
        effects = [0.0, *(p["gain"] for p in mine)]
        marker = markers[i % len(markers)]
        axes.plot(costs, effects, marker=marker, markersize=4, linewidth=1, label=row.contender)
    axes.set_xscale("symlog", linthresh=0.05)
    axes.set_xlabel("KL to the unsteered model on neutral text, nats a token")
    axes.set_ylabel(f"gain in {task.headline}")
    axes.set_title(f"{task.name}: the first fold")
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
