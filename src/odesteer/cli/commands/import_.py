"""``odesteer import``: make a steerer of the vectors or edits of another project."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odesteer.cli.arguments.options import (
    STEER_POSITION_HELP,
    Debug,
    Force,
    Json,
    Revision,
    SteererFile,
    checked_position,
)
from odesteer.cli.help import STEERING
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_output
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.steerers import describe

if TYPE_CHECKING:
    from odesteer.artifact import Provenance


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A control vector (.gguf), steering vectors or LoReFT edits as plain tensors"
            " (.safetensors), or a steering vector of vllm-lens (.json).",
        ),
    ],
    output: SteererFile,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model that it is for: widths and layers are checked, and the steerer"
            " remembers it.",
        ),
    ] = None,
    revision: Revision = None,
    layer: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="The layer, counted from zero, of a file that does not say it.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The tensor, of several in a file.", rich_help_panel=STEERING
        ),
    ] = None,
    row: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="The row of the tensor, as of W_dec of a sparse autoencoder.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    steer_position: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help=f"Which tokens to steer: {STEER_POSITION_HELP}  [default: as in the file, or all]",
            show_default=False,
            rich_help_panel=STEERING,
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a steerer of the vectors or edits of another project.

    Each layer's vector becomes a CAA with T = 1, several layers one set. Examples:

    odesteer import happy.gguf --model ./my-model -o happy.safetensors

    odesteer import sae.safetensors --tensor W_dec --row 1234 --layer 12 -o feature.safetensors
    """
    with Screen(json=json, debug=debug) as screen:
        check_output(output, force=force)

        from odesteer.interchange import read_steerer

        if steer_position is not None:
            steer_position = checked_position(steer_position)
        origin = None if model is None else _origin(ModelChoice(model, revision), screen)
        steerer = read_steerer(
            file, layer=layer, tensor=tensor, row=row, position=steer_position, provenance=origin
        )
        steerer.save(output)
        layers = [member.site.layer for member in steerer.members if member.site is not None]
        screen.rows(
            {
                "imported": f"{file}, {type(steerer.members[0].method).__name__}",
                "layers": ", ".join(map(str, layers)),
                "width": str(steerer.members[0].width),
                "saved": f"{output} ({output.stat().st_size:,} bytes)",
            }
        )
        screen.document({"imported": str(file), "saved": str(output), **describe(steerer)})


def _origin(choice: ModelChoice, screen: Screen) -> "Provenance":
    """What the configuration of a model says about it, without loading its weights."""
    from odesteer.artifact import Provenance
    from odesteer.models.provenance_check import model_name

    config = choice.config(screen)
    return Provenance(
        model_id=model_name(choice.source),
        model_width=getattr(config, "hidden_size", None),
        n_layers=getattr(config, "num_hidden_layers", None),
    )
