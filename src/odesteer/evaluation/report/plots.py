"""Plots of a run: curves, heat maps, histograms. Needs matplotlib."""

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from odesteer.errors import MissingDependencyError
from odesteer.evaluation.report.summary import SummaryRow, lower_is_better
from odesteer.evaluation.runner import RunResults
from odesteer.evaluation.runner.contenders import NONE
from odesteer.evaluation.runner.selection import CurvePoint
from odesteer.evaluation.task import Task

_FARTHEST = 2.5
"""Curves are cut off at this multiple of the lowest perplexity."""
_TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1e3, 1e4)
_EMPHASISED = {"odesteer": "tab:red", "one-step": "tab:blue", "caa": "black"}


def plots(run: RunResults, lines: Sequence[SummaryRow]) -> Iterator[tuple[str, str, bytes]]:
    """File name, caption and PNG of each plot. Raises `MissingDependencyError`."""
    for task in run.plan.tasks:
        curve = [point for point in run.curve if point.task == task.name]
        if len(curve) > 1:
            caption = f"{task.name}: {task.headline} against perplexity on validation items"
            yield f"curves-{task.name}.png", caption, _curves(run, task, curve)
        tried = [point for point in curve if point.setting is not None]
        if len({point.setting.layer for point in tried if point.setting is not None}) > 1:
            caption = f"{task.name}: {task.headline} by layer and amount on validation items"
            yield f"layers-{task.name}.png", caption, _heat_maps(task, tried)
        histogram = _barriers(run, task)
        if histogram is not None:
            caption = f"{task.name}: mean barrier of each completion before and after, nats"
            yield f"barrier-{task.name}.png", caption, histogram
        own = [line for line in lines if line.task == task.name]
        yield (
            f"headline-{task.name}.png",
            f"{task.name}: {task.headline}",
            _bars(run, task, own),
        )


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib; install it with: pip install 'odesteer[plot]'"
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    # Without the version of matplotlib in it, the same plot is the same bytes.
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def _curves(run: RunResults, task: Task, curve: Sequence[CurvePoint]) -> bytes:
    """Headline metric over perplexity (over amounts without it), a curve for each contender.

    Curves are of the layer that the search starts at. Rings mark the chosen setting, at any
    layer; hollow points were measured on some of the items only.
    """
    figure, ((axes,),) = _figure(8, 5.2)
    fluent = any("nll" in point.means for point in curve)
    from matplotlib import colormaps
    from matplotlib.ticker import NullFormatter

    def coordinates(point: CurvePoint) -> tuple[float, float]:
        size = 0.0 if point.setting is None else point.setting.value
        across = math.exp(min(point.means["nll"], 20.0)) if fluent else size
        return across, point.means[task.headline]

    known = [p for p in curve if task.headline in p.means and (not fluent or "nll" in p.means)]
    if not known:
        return _png(figure)  # no setting has both figures
    colors = colormaps["tab20"]
    for i, name in enumerate(dict.fromkeys(point.contender.name for point in known)):
        own = [point for point in known if point.contender.name == name]
        if name == NONE:
            axes.plot(*zip(*map(coordinates, own), strict=True), "k*", markersize=13, zorder=4)
            axes.plot([], [], "k*", label="no steering")
            continue
        strong = name in _EMPHASISED
        color = _EMPHASISED.get(name, colors(i % colors.N))
        style = {"color": color, "alpha": 1.0 if strong else 0.55}
        axes.plot([], [], marker="o", markersize=4, label=name, **style)
        for path in _paths(run, task, own):
            across, up = zip(*map(coordinates, path), strict=True)
            width = 2.4 if strong else 1.0
            axes.plot(across, up, linewidth=width, zorder=4 if strong else 2, **style)
        for point in own:
            whole = point.state == "measured"
            face = style["color"] if whole else "white"
            size = 9 if point.chosen else 4
            if point.chosen or point.setting is None or _at_start(run, task, point):
                axes.plot(
                    *coordinates(point), marker="o", markersize=size, markerfacecolor=face,
                    markeredgecolor="black" if point.chosen else style["color"],
                    alpha=style["alpha"], zorder=5 if strong else 3,
                )  # fmt: skip
    if fluent:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        # Incoherent text has perplexities that would compress all other points into a line.
        left, right = axes.get_xlim()
        least = math.exp(min(point.means["nll"] for point in known))
        axes.set_xlim(left=max(left, least / 1.1), right=min(right, _FARTHEST * least))
        shown = axes.get_xlim()
        axes.set_xticks([x for x in _TICKS if shown[0] <= x <= shown[1]])
    axes.set_xlabel("perplexity of completions, unsteered model" if fluent else "amount")
    axes.set_ylabel(task.headline)
    axes.set_title(task.name)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=2)
    return _png(figure)


def _at_start(run: RunResults, task: Task, point: CurvePoint) -> bool:
    layer = run.plan.layers[task.name].default
    return point.setting is not None and point.setting.layer == layer


def _paths(run: RunResults, task: Task, points: Sequence[CurvePoint]) -> Iterator[list[CurvePoint]]:
    """The points of each fold and variant at the layer that searches begin with, by amount."""
    found: dict[tuple[str, int], list[tuple[float, CurvePoint]]] = {}
    for point in points:
        if point.setting is not None and _at_start(run, task, point):
            at = point.fold, point.setting.candidate
            found.setdefault(at, []).append((point.setting.value, point))
    for path in found.values():
        yield [point for _, point in sorted(path, key=lambda pair: pair[0])]


def _heat_maps(task: Task, tried: Sequence[CurvePoint]) -> bytes:
    """A heat map for each method: layers across, amounts up; folds and variants together."""
    names = list(dict.fromkeys(point.contender.name for point in tried))
    settings = [(p.contender.name, p.setting, p.means.get(task.headline, math.nan)) for p in tried]
    layers = sorted({setting.layer for _, setting, _ in settings if setting is not None})
    n_columns = min(4, len(names))
    n_rows = -(-len(names) // n_columns)
    figure, axes = _figure(3.2 * n_columns, 2.8 * n_rows, n_rows, n_columns)
    flat = [ax for row in axes for ax in row]
    known = [value for *_, value in settings if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    for ax, name in zip(flat, names, strict=False):
        own = [
            (setting, value)
            for contender, setting, value in settings
            if contender == name and setting is not None
        ]
        amounts = sorted({setting.value for setting, _ in own})
        grid = [[math.nan] * len(layers) for _ in amounts]
        for setting, value in own:
            grid[amounts.index(setting.value)][layers.index(setting.layer)] = value
        image = ax.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high)
        ax.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        ax.set_yticks(range(len(amounts)), [f"{amount:g}" for amount in amounts])
        ax.set_title(name, fontsize=9)
    for ax in flat[len(names) :]:
        ax.set_axis_off()
    figure.colorbar(image, ax=axes, label=task.headline)
    return _png(figure)


def _barriers(run: RunResults, task: Task) -> bytes | None:
    """Histograms of the barrier before and after, of contenders with one; None if none has."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for result in run.results:
        before, after = result.completion.get("before"), result.completion.get("after")
        if result.spec.task.name == task.name and before is not None and after is not None:
            pair = found.setdefault(result.spec.contender.name, ([], []))
            pair[0].append(before)
            pair[1].append(after)
    if not found:
        return None
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    figure, axes = _figure(3.2 * n_columns, 2.4 * n_rows, n_rows, n_columns)
    flat = [ax for row in axes for ax in row]
    for ax, (name, (before, after)) in zip(flat, found.items(), strict=False):
        low, high = min(before + after), max(before + after)
        span = (low, high) if high > low else (low - 0.5, low + 0.5)
        for values, label in ((before, "before"), (after, "after")):
            ax.hist(values, 24, range=span, histtype="stepfilled", alpha=0.6, label=label)
        ax.axvline(0.0, color="k", linewidth=0.7)
        ax.set_title(name, fontsize=9)
    flat[0].legend(fontsize=7)
    for ax in flat[len(found) :]:
        ax.set_axis_off()
    return _png(figure)


def _bars(run: RunResults, task: Task, lines: Sequence[SummaryRow]) -> bytes:
    """The headline metric of every line with its interval."""
    known = [
        (line.contender, estimate)
        for line in lines
        if (estimate := line.metrics.get(task.headline)) is not None and estimate.value is not None
    ]
    less = task.headline in lower_is_better(run, task)
    known.sort(key=lambda pair: pair[1].value or 0.0, reverse=less)
    figure, ((axes,),) = _figure(7, 1.2 + 0.28 * max(len(known), 1))
    for at, (name, estimate) in enumerate(known):
        value = estimate.value or 0.0
        low = value if estimate.low is None else estimate.low
        high = value if estimate.high is None else estimate.high
        color = "C1" if name.startswith("odesteer") else "0.35" if name == NONE else "C0"
        axes.plot([low, high], [at, at], color=color, linewidth=2)
        axes.plot([value], [at], "o", color=color)
        if name == NONE:
            axes.axvline(value, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(known)), [name for name, _ in known])
    axes.set_xlabel(f"{task.headline}{' (less is better)' if less else ''}")
    axes.set_title(task.name)
    axes.grid(alpha=0.25, axis="x")
    return _png(figure)
