"""``odesteer transfer``: carry a steerer to another model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from odesteer.cli.arguments.options import Debug, Device, Dtype, Force, Json, Revision
from odesteer.cli.arguments.prompts import read_texts
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.help import DATA
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_output
from odesteer.cli.output.screen import Screen

MapKind = Literal["ridge", "orthogonal"]


def transfer(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A steerer, as fit saves it, or its hub name.")
    ],
    to: Annotated[str, typer.Option(metavar="MODEL", help="The model that it shall steer.")],
    texts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Ordinary texts, one a line, 50 at least; best like those to be steered.",
            rich_help_panel=DATA,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the steerer.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="The model that it was fitted on; by default the one that its file names.",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Layer of the other model; by default the one of the same depth."),
    ] = None,
    kind: Annotated[
        MapKind,
        typer.Option(
            "--map",
            help="The map: ridge regression, or a rotation and a scale.",
            rich_help_panel=DATA,
        ),
    ] = "ridge",
    least_explained: Annotated[
        float,
        typer.Option(
            help="Refuse a map that explains less of the variance of the barrier on unseen texts.",
            rich_help_panel=DATA,
        ),
    ] = 0.25,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Carry a steerer to another model.

    Both models read the texts, and a map between their activations is fitted; the barrier of the
    steerer becomes a barrier of mapped activations.
    The share of it that the map explains on unseen texts is printed, and refused where it is small.
    Example:

    odesteer transfer truthful.safetensors --to ./other-model --texts texts.txt -o other.safetensors
    """
    with Screen(json=json, debug=debug) as screen:
        check_output(output, force=force)

        from odesteer.artifact import Steerer, from_pretrained, save
        from odesteer.models.transfer import transfer as carried

        steerer = from_pretrained(file)
        if not isinstance(steerer, Steerer):
            raise UsageError(f"{file} is a set of steerers; carry them one by one.")
        origin = source or steerer.provenance.model_id
        if origin is None:
            raise UsageError(f"{file} does not name its model; give it with --from MODEL.")
        lines = read_texts(texts, "--texts")
        own = ModelChoice(origin, None, device, dtype)
        other = ModelChoice(to, revision, device, dtype)
        with own.opened(screen) as first, other.opened(screen) as second:
            screen.note(f"{first.model_id} and {second.model_id} read {len(lines)} texts …")
            with checking_usage():
                found = carried(
                    steerer,
                    first,
                    second,
                    lines,
                    layer=layer,
                    kind=kind,
                    least_explained=least_explained,
                )
        save(found.steerer, output)
        site = found.steerer.site
        screen.rows(
            {
                "site": str(site),
                "explained, barrier": f"{found.explained_barrier:.3f} on unseen texts",
                "explained, activations": f"{found.explained_activations:.3f}",
                "fitted to": f"{found.n_tokens} tokens of {found.n_texts} texts",
                "saved": str(output),
            }
        )
        screen.document(
            {
                "saved": str(output),
                "layer": None if site is None else site.layer,
                "explained_barrier": found.explained_barrier,
                "explained_activations": found.explained_activations,
                "n_texts": found.n_texts,
                "n_tokens": found.n_tokens,
            }
        )
