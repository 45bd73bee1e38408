"""Figures and tables as people read them."""

import re
import time
from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def seconds() -> float:
    """A clock that only goes forward."""
    return time.perf_counter()


def in_nats(value: float) -> str:
    """A value of the barrier, with its sign."""
    return f"{value:+.2f}"


def share(part: int, whole: int) -> float:
    """``part`` of ``whole``; 0 of nothing."""
    return part / whole if whole else 0.0


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def beside(
    columns: Mapping[str, RenderableType], footers: Mapping[str, Text] | None = None
) -> Table:
    """Columns of equal width, each with a heading and, where given, a line below."""
    table = Table(
        box=None, expand=True, padding=(0, 3, 0, 0), show_footer=footers is not None, pad_edge=False
    )
    for heading in columns:
        footer = (footers or {}).get(heading, Text())
        table.add_column(Text(heading, style="bold"), footer, ratio=1, overflow="fold")
    table.add_row(*columns.values())
    return table


def harmless(text: str) -> str:
    """A generated text without control characters, which could command a terminal."""
    return _CONTROLS.sub("", text)


def shown(text: str) -> Text:
    """A generated text as it is read: no space at its ends, and a sign where it is empty."""
    text = harmless(text).strip()
    return Text(text) if text else Text("(nothing)", style="dim italic")
