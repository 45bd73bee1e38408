"""Texts for people, side by side."""

import re
from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

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
