"""The ``odesteer`` command, put together from one file a command.

Only the files of the commands are imported here, and they import torch, transformers and the rest
of odesteer when they run: ``odesteer --help`` stays quick.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from odesteer.cli.commands.bench.command import bench
from odesteer.cli.commands.demo.command import demo
from odesteer.cli.commands.fit import fit
from odesteer.cli.commands.generate.command import generate
from odesteer.cli.commands.inspect import inspect
from odesteer.cli.commands.methods import methods
from odesteer.cli.commands.push import push
from odesteer.cli.commands.serve import serve
from odesteer.cli.commands.tune.command import tune
from odesteer.cli.errors import FAILURE, INTERRUPTED, SUCCESS
from odesteer.cli.output.screen import failure, report, write_json
from odesteer.version import __version__

app = typer.Typer(
    name="odesteer",
    help="Activation steering of large language models as an ODE along a barrier function.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: odesteer demo",
)
for _command in (bench, demo, fit, generate, serve, tune, inspect, push, methods):
    app.command()(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"odesteer {__version__}")
        raise typer.Exit


@app.callback()
def _odesteer(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Fit steerers, steer models, see the effect."""


# Newer versions of typer bring a click of their own; this is the base of the errors of either.
_ClickError: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, those of the process by default; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows another rather than ending the program.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        code = typer.main.get_command(app)(args=words, prog_name="odesteer", standalone_mode=False)
    except _ClickError as error:
        return _usage(error, words)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    return code if isinstance(code, int) else SUCCESS


def _usage(error: Exception, words: Sequence[str]) -> int:
    """Say what is wrong with the words of the command line."""
    message = str(getattr(error, "format_message", error.__str__)())
    code = int(getattr(error, "exit_code", FAILURE))
    value = _value_of(getattr(error, "param", None), words)
    if value is not None and value not in message:
        message += f" (found {value!r})"
    context = getattr(error, "ctx", None)
    if context is not None:
        message += f"\nTry '{context.command_path} --help'."
    report(message, Console(stderr=True, highlight=False, markup=False, emoji=False))
    if "--json" in words:
        write_json(failure(error, message, code))
    return code


def _value_of(option: object, words: Sequence[str]) -> str | None:
    """What the words say for an option, which the error about it may not repeat."""
    for name in getattr(option, "opts", ()):
        for word, following in zip(words, [*words[1:], None], strict=True):
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
    return None
