"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to stdout, and nothing else.")
]
Debug = Annotated[
    bool,
    typer.Option("--debug", envvar="ODESTEER_DEBUG", help="Show the traceback of an error."),
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the model on the hub.")
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps … By default the best there is."),
]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="float32, bfloat16, float16 or auto."),
]
Level = Annotated[
    float | None,
    typer.Option(
        help="How much: 0 the decision boundary, 1 where the best 10 % of the positive examples"
        " are; negative steers the other way."
    ),
]
ArcLength = Annotated[
    float | None, typer.Option("--T", help="How much: arc length in activation units.")
]
Strength = Annotated[
    float | None, typer.Option(help="How much: arc length in mean activation norms.")
]
Interpolation = Annotated[
    float | None, typer.Option(help="How much: share of a transport map, 0 to 1.")
]
OutputFile = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", show_default=False)]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Id on the Hugging Face hub, or a folder; without it the bundled model.",
        show_default=False,
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A parameter of the method, as in level=2, solver=rk4 or barrier.C=10; repeat it"
        " for several.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=NAME",
        help="What the data call a field, where they call it otherwise, as in text=statement.",
    ),
]
OnBadRow = Literal["error", "drop"]
Duplicates = Annotated[
    OnBadRow, typer.Option(help="What to do with rows that repeat an earlier one.")
]
Identical = Annotated[
    OnBadRow, typer.Option(help="What to do with rows whose two sides are the same.")
]
Subset = Annotated[
    str | None, typer.Option(metavar="NAME", help="Configuration of a data set on the hub.")
]
DataSplit = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Split of a data set on the hub.  [default: train]"),
]
CapturePosition = Literal["last", "answer", "prompt", "random_answer"]
SteerPosition = Literal["last", "generated", "prompt", "all"]
SteeredTokens = Annotated[SteerPosition, typer.Option(help="Which tokens to steer.")]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Texts in one pass.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result.")]
