"""Heat maps of search results: value and cost over layer and amount."""

import io
import math
from collections.abc import Sequence
from typing import Any

from odesteer.errors import MissingDependencyError
from odesteer.tuning.search.results import MEASURED, SearchResults, SettingResult

_SIZE = 0.55


def heat_map(surface: SearchResults) -> bytes:
    """A PNG with, for each candidate, a map of the value and one of the cost in fluency.

    Settings over the budget are crossed out, settings that were stopped early are hatched (their
    values are means over fewer items), the choice has a frame. Raises `MissingDependencyError`
    without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib; install it with pip install 'odesteer[plot]'."
        ) from None
    blocks = [
        [row for row in surface.rows if row.setting.candidate == number]
        for number in range(len(surface.candidates))
    ]
    widest = max(len({row.setting.value for row in rows}) for rows in blocks)
    heights = [len({row.setting.layer for row in rows}) for rows in blocks]
    size = (2 * (widest * _SIZE + 2.2), sum(heights) * _SIZE + 1.6 * len(blocks) + 0.4)
    figure = Figure(figsize=(max(size[0], 8), max(size[1], 3)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(blocks), 2, squeeze=False, height_ratios=heights)
    for number, (candidate, rows) in enumerate(zip(surface.candidates, blocks, strict=True)):
        value, cost = axes[number]
        _map(value, surface, rows, "value", "viridis")
        value.set_title(f"{candidate.label}: value", fontsize="medium")
        _map(cost, surface, rows, "fluency", "magma_r")
        cost.set_title(f"cost in fluency (budget {surface.budget:g})", fontsize="medium")
        for ax in (value, cost):
            ax.set_xlabel(candidate.quantity)
            ax.set_ylabel("layer")
    about = surface.about.get("value", "value")
    figure.suptitle(f"{about}; unsteered {surface.unsteered.value:.3g}", fontsize="medium")
    image = io.BytesIO()
    # Without the version of matplotlib: the same results give the same bytes.
    figure.savefig(image, format="png", dpi=110, metadata={"Software": None})
    return image.getvalue()


def _map(
    ax: Any, surface: SearchResults, rows: Sequence[SettingResult], name: str, colours: str
) -> None:
    from matplotlib.patches import Rectangle

    layers = sorted({row.setting.layer for row in rows})
    values = sorted({row.setting.value for row in rows})
    grid = [[math.nan] * len(values) for _ in layers]
    for row in rows:
        if row.score is not None:
            at = layers.index(row.setting.layer), values.index(row.setting.value)
            grid[at[0]][at[1]] = getattr(row.score, name)
    known = [figure for line in grid for figure in line if math.isfinite(figure)]
    limits = (min(known), max(known)) if known else (0.0, 1.0)
    if name == "fluency":
        # Cap the colour scale, so that costs far over the budget do not hide the differences below.
        limits = (min(limits[0], 0.0), max(2 * surface.budget, 0.01))
    image = ax.imshow(
        grid, aspect="auto", origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1]
    )
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    ax.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    for row in rows:
        x, y = values.index(row.setting.value), layers.index(row.setting.layer)
        corner = x - 0.5, y - 0.5
        if row.score is None:
            ax.text(x, y, "–", ha="center", va="center")
            continue
        figure = getattr(row.score, name)
        text = f"{figure:.2f}" if math.isfinite(figure) else "–"
        box = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7}
        ax.text(x, y, text, ha="center", va="center", fontsize="x-small", bbox=box)
        if row.state != MEASURED:
            ax.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=0, hatch="//", alpha=0.35)
            )
        if not row.score.fluency <= surface.budget:
            ax.plot([x - 0.45, x + 0.45], [y - 0.45, y + 0.45], color="white", lw=1)
            ax.plot([x - 0.45, x + 0.45], [y + 0.45, y - 0.45], color="white", lw=1)
        if row == surface.choice:
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, lw=2.5, edgecolor="red"))
