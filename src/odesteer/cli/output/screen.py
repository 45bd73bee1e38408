"""Where a command writes, and how it ends."""

import json
import math
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.text import Text
from typing_extensions import Self

from odesteer.cli.errors import verdict

# Of no use to whoever runs a command.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


class Screen:
    """Text for people, or one JSON document on stdout and nothing else there.

    Used in a ``with`` block around everything that a command does: errors and warnings inside
    become one line on stderr each, and errors the exit code.

    Parameters:
        json: write the JSON document.
        debug: write tracebacks of errors.
    """

    def __init__(self, *, json: bool = False, debug: bool = False) -> None:
        self.json = json
        self.debug = debug
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._warned: list[str] = []
        self._catching = warnings.catch_warnings()

    @property
    def is_interactive(self) -> bool:
        """Whether somebody watches stderr; if not, there are no progress bars."""
        return self.err.is_terminal

    def print(self, *renderables: RenderableType) -> None:
        """For people, on stdout, one below the other; nothing under ``--json``."""
        if not self.json:
            for renderable in renderables:
                self.out.print(renderable)

    def print_unwrapped(self, text: Text) -> None:
        """As `print`, leaving it to the terminal to break long lines."""
        if not self.json:
            self.out.print(text, soft_wrap=True)

    def write(self, text: str, end: str = "\n") -> None:
        """Text as it is, never wrapped, on stdout; nothing under ``--json``."""
        if not self.json:
            self.out.file.write(text + end)
            self.out.file.flush()

    def rows(self, rows: Mapping[str, str]) -> None:
        """Names and what they stand for, each on a line of its own however long it is."""
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            self.print_unwrapped(Text.assemble((name.ljust(width + 2), "bold"), value))

    def note(self, text: str) -> None:
        """What goes on, on stderr."""
        self.err.print(Text(text, style="dim"), soft_wrap=True)

    def document(self, content: Mapping[str, Any]) -> None:
        """The JSON document of the command; nothing without ``--json``."""
        if self.json:
            write_json({**content, "warnings": self._warned}, self.out.file)

    def __enter__(self) -> Self:
        self._catching.__enter__()
        warnings.simplefilter("always")
        for category in _FOR_DEVELOPERS:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = self._warn
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._catching.__exit__(kind, error, where)
        if error is None or isinstance(error, (SystemExit, typer.Exit, BrokenPipeError)):
            return
        if self.debug and not isinstance(error, typer.Abort):
            traceback.print_exception(kind, error, where, file=self.err.file)
        code, message = verdict(error)
        report(message, self.err)
        if self.json:
            write_json(failure(error, message, code), self.out.file)
        raise typer.Exit(code) from None

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if text not in self._warned:
            self._warned.append(text)
            self.err.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


def failure(error: BaseException, message: str, code: int) -> dict[str, Any]:
    """The JSON document of a command that failed."""
    return {"error": {"type": type(error).__name__, "message": message, "exit_code": code}}


def report(message: str, console: Console) -> None:
    """Say what went wrong."""
    console.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def write_json(content: Mapping[str, Any], file: IO[str] | None = None) -> None:
    """One JSON document; NaN and infinity, which JSON does not have, become null."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    print(text, file=sys.stdout if file is None else file, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
