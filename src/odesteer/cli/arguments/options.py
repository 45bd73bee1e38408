"""Options that several commands share, with their help panels."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from odesteer.cli.arguments.prompts import unescaped
from odesteer.cli.errors import checking_usage
from odesteer.cli.help import DATA, GENERATION, MACHINE, SEARCH, STEERING

Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to stdout, and nothing else.")
]
Debug = Annotated[
    bool,
    typer.Option("--debug", envvar="ODESTEER_DEBUG", help="Show the traceback of an error."),
]
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="REV",
        help="Branch, tag or commit of the model on the hub.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps … By default the best there is.",
        rich_help_panel=MACHINE,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE", help="float32, bfloat16, float16 or auto.", rich_help_panel=MACHINE
    ),
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="Arguments of the chat template, as in '{\"enable_thinking\": false}'.",
        rich_help_panel=MACHINE,
    ),
]
Level = Annotated[
    float | None,
    typer.Option(
        help="How much: 0 the decision boundary, 1 where the best 10 % of the positive examples"
        " are; negative steers the other way.",
        rich_help_panel=STEERING,
    ),
]
ArcLength = Annotated[
    float | None,
    typer.Option("--T", help="How much: arc length in activation units.", rich_help_panel=STEERING),
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="How much: length in standard deviations along the mean difference.",
        rich_help_panel=STEERING,
    ),
]
Interpolation = Annotated[
    float | None,
    typer.Option(help="How much: fraction of a transport map, 0 to 1.", rich_help_panel=STEERING),
]
SteererFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to save the steerer.")
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Id on the Hugging Face hub, a folder or a .gguf file; without it the bundled model.",
        show_default=False,
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A parameter of the method, as in level=2, solver=rk4 or barrier.C=10; repeat it"
        " for several.",
        rich_help_panel=STEERING,
    ),
]
DATA_HELP = (
    "Contrastive data: .jsonl, .json, .csv, .tsv or .parquet, or a data set owner/name on the hub."
    " Rows are {positive, negative}, {prompt, chosen, rejected} or {text, label}."
)
Positive = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Instead of --data: the positive texts, a text a line (.txt) or a JSON list of them.",
        rich_help_panel=DATA,
    ),
]
Negative = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The negative texts, beside --positive.", rich_help_panel=DATA
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=NAME",
        help="What the data call a field, where they call it otherwise, as in text=statement.",
        rich_help_panel=DATA,
    ),
]
OnBadRow = Literal["error", "drop"]
Duplicates = Annotated[
    OnBadRow,
    typer.Option(help="What to do with rows that repeat an earlier one.", rich_help_panel=DATA),
]
Identical = Annotated[
    OnBadRow,
    typer.Option(help="What to do with rows whose two sides are the same.", rich_help_panel=DATA),
]
Subset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Configuration of a data set on the hub.", rich_help_panel=DATA
    ),
]
DataSplit = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Split of a data set on the hub.  [default: train]",
        rich_help_panel=DATA,
    ),
]
CapturePosition = Literal["last", "answer", "prompt", "random_answer"]


def checked_position(value: str) -> str:
    r"""The words of a steering position, with ``\n`` for a line end in markers.

    Raises `UsageError` for other words.
    """
    from odesteer.artifact.positions import parse_position

    with checking_usage():
        return str(parse_position(unescaped(value)))


STEER_POSITION_HELP = (
    "last, generated, prompt or all; a window, as in generated:0:32 or last::1; or a phase:"
    " thinking, answer or after:MARKER."
)
SteeredTokens = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help=f"Which tokens to steer: {STEER_POSITION_HELP}",
        rich_help_panel=STEERING,
    ),
]
Watermark = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="Watermark the texts as transformers does: greenlist for its defaults, or JSON or a"
        " JSON file with its settings and the key. See: odesteer detect",
        rich_help_panel=GENERATION,
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, metavar="N", help="Texts in one pass.", rich_help_panel=MACHINE)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result.")]
Refinements = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="How often to look between the best and the next.",
        rich_help_panel=SEARCH,
    ),
]
