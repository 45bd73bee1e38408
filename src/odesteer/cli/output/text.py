"""Text for people: numbers, generated texts, texts side by side."""

import re
from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def format_nats(value: float) -> str:
    """A value of the barrier with its sign and two decimals."""
    return f"{value:+.2f}"


def format_figures(held_out: Mapping[str, float]) -> dict[str, str]:
    """Rows of held-out figures: the AUC beside that of a linear probe, with errors; the rest."""
    rest = dict(held_out)

    def with_error(name: str) -> str:
        value, error = rest.pop(name), rest.pop(f"{name}_error", None)
        return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"

    rows = {}
    if "auc" in rest:
        rows["held-out AUC"] = with_error("auc")
    if "linear_probe_auc" in rest:
        probe = f"{with_error('linear_probe_auc')}, of a standardised linear probe"
        rows["  to compare" if rows else "held-out AUC"] = probe
    if rest:
        rows["held out"] = ", ".join(
            f"{name.replace('_', ' ')} {figure:.3f}" for name, figure in rest.items()
        )
    return rows


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def side_by_side(
    columns: Mapping[str, RenderableType], footers: Mapping[str, Text] | None = None
) -> Table:
    """A table of columns of equal width, each with a heading and optionally a footer."""
    table = Table(
        box=None, expand=True, padding=(0, 3, 0, 0), show_footer=footers is not None, pad_edge=False
    )
    for heading in columns:
        footer = (footers or {}).get(heading, Text())
        table.add_column(Text(heading, style="bold"), footer, ratio=1, overflow="fold")
    table.add_row(*columns.values())
    return table


def without_controls(text: str) -> str:
    """A generated text without control characters, which a terminal would execute."""
    return _CONTROLS.sub("", text)


def readable(text: str) -> Text:
    """A generated text without surrounding space; a placeholder if it is empty."""
    text = without_controls(text).strip()
    return Text(text) if text else Text("(nothing)", style="dim italic")
