"""Screen of a command: text, warnings and errors for people, or one JSON document."""

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

from odesteer.cli.errors import exit_status

# Warnings for developers are not shown to users of a command.
_HIDDEN_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


class Screen:
    """Text for people, or one JSON document on stdout and nothing else there.

    A context manager around the whole command: an error or a warning inside becomes one line on
    stderr, and an error also the exit code.

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
        """Whether stderr is a terminal; if not, there are no progress bars."""
        return self.err.is_terminal

    def print(self, *renderables: RenderableType) -> None:
        """Print on stdout, one below the other; nothing under ``--json``."""
        if not self.json:
            for renderable in renderables:
                self.out.print(renderable)

    def print_unwrapped(self, text: Text) -> None:
        """As `print`, with line breaks left to the terminal."""
        if not self.json:
            self.out.print(text, soft_wrap=True)

    def write(self, text: str, end: str = "\n") -> None:
        """Write text unchanged and unwrapped on stdout; nothing under ``--json``."""
        if not self.json:
            self.out.file.write(text + end)
            self.out.file.flush()

    def rows(self, rows: Mapping[str, str]) -> None:
        """Print names and values, one pair a line, unwrapped."""
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            self.print_unwrapped(Text.assemble((name.ljust(width + 2), "bold"), value))

    def note(self, text: str) -> None:
        """Print a progress note on stderr."""
        self.err.print(Text(text, style="dim"), soft_wrap=True)

    def document(self, content: Mapping[str, Any]) -> None:
        """Write the JSON document of the command; nothing without ``--json``."""
        if self.json:
            write_json({**content, "warnings": self._warned}, self.out.file)

    def __enter__(self) -> Self:
        self._catching.__enter__()
        warnings.simplefilter("always")
        for category in _HIDDEN_WARNINGS:
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
        code, message = exit_status(error)
        print_error(message, self.err)
        if self.json:
            write_json(error_document(error, message, code), self.out.file)
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


def error_document(error: BaseException, message: str, code: int) -> dict[str, Any]:
    """The JSON document of a command that failed."""
    return {"error": {"type": type(error).__name__, "message": message, "exit_code": code}}


def print_error(message: str, console: Console) -> None:
    """Print an error message."""
    console.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def write_json(content: Mapping[str, Any], file: IO[str] | None = None) -> None:
    """Write one JSON document; NaN and infinity become null."""
    text = json.dumps(_json_value(content), indent=2, ensure_ascii=False, allow_nan=False)
    print(text, file=sys.stdout if file is None else file, flush=True)


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json_value(item) for item in value]
    return value
