"""The ``odesteer`` command line app: registers the commands, runs them, reports usage errors.

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
from odesteer.cli.commands.detect import detect
from odesteer.cli.commands.export import export
from odesteer.cli.commands.fit import fit
from odesteer.cli.commands.generate.command import generate
from odesteer.cli.commands.import_ import import_file
from odesteer.cli.commands.inspect import inspect
from odesteer.cli.commands.methods import methods
from odesteer.cli.commands.pairs import pairs
from odesteer.cli.commands.push import push
from odesteer.cli.commands.sae import sae
from odesteer.cli.commands.serve import serve
from odesteer.cli.commands.transfer import transfer
from odesteer.cli.commands.tune.command import tune
from odesteer.cli.errors import FAILURE, INTERRUPTED, SUCCESS
from odesteer.cli.help import PanelCommand
from odesteer.cli.output.screen import error_document, print_error, write_json
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
for _command in (
    bench,
    demo,
    pairs,
    fit,
    generate,
    serve,
    tune,
    inspect,
    detect,
    export,
    transfer,
    push,
    sae,
    methods,
):
    app.command(cls=PanelCommand)(_command)
app.command("import", cls=PanelCommand)(import_file)


def _show_version(is_given: bool) -> None:
    if is_given:
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
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        code = typer.main.get_command(app)(args=given, prog_name="odesteer", standalone_mode=False)
    except _ClickError as error:
        return _report_usage_error(error, given)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone: discard what is left to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    return code if isinstance(code, int) else SUCCESS


def _report_usage_error(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error of the parser, with the value that it is about; the exit code."""
    message = str(getattr(error, "format_message", error.__str__)())
    code = int(getattr(error, "exit_code", FAILURE))
    value = _given_value(getattr(error, "param", None), arguments)
    if value is not None and value not in message:
        message += f" (found {value!r})"
    context = getattr(error, "ctx", None)
    if context is not None:
        message += f"\nTry '{context.command_path} --help'."
    print_error(message, Console(stderr=True, highlight=False, markup=False, emoji=False))
    if "--json" in arguments:
        write_json(error_document(error, message, code))
    return code


def _given_value(option: object, arguments: Sequence[str]) -> str | None:
    """The value that was given for an option; the message of the parser may lack it."""
    for name in getattr(option, "opts", ()):
        for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
            if argument == name:
                return following
            if argument.startswith(f"{name}="):
                return argument.removeprefix(f"{name}=")
    return None
