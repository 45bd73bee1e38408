"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

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
