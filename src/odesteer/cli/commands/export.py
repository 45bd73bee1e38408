"""``odesteer export``: write a steerer in the format of another project."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from odesteer.cli.arguments.options import (
    ArcLength,
    Debug,
    Device,
    Dtype,
    Force,
    Interpolation,
    Json,
    Level,
    Revision,
    Strength,
)
from odesteer.cli.arguments.prompts import read_texts
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.help import DATA, STEERING
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_output
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.artifact import Steerer, SteererSet
    from odesteer.interchange import ControlVector, MeanDisplacement
    from odesteer.methods import Amount

Format = Literal["gguf", "lm-eval"]


def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A steerer, as fit saves it, or its hub name.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")
    ],
    to: Annotated[
        Format,
        typer.Option(help="gguf: a control vector of llama.cpp; lm-eval: for its model 'steered'."),
    ] = "gguf",
    level: Level = None,
    T: ArcLength = None,
    strength: Strength = None,
    interpolation: Interpolation = None,
    mean_displacement: Annotated[
        bool,
        typer.Option(
            "--mean-displacement",
            help="Export what the steerer does on average, where it depends on the activation;"
            " needs --model.",
            rich_help_panel=STEERING,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model: its architecture is written into the file, and mean displacements are"
            " taken on it.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Questions over whose last tokens the mean is taken, one a line; by default"
            " neutral ones.",
            rich_help_panel=DATA,
        ),
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a steerer in the format of another project.

    Steerers that add one vector (CAA, RepE, ITI) are exported exactly, with their amount multiplied
    in. Examples:

    odesteer export caa.safetensors --to gguf --T 1 -o caa.gguf

    odesteer export truthful.safetensors --mean-displacement --model ./my-model -o mean.gguf
    """
    with Screen(json=json, debug=debug) as screen:
        check_output(output, force=force)
        if mean_displacement and model is None:
            raise UsageError("--mean-displacement is taken on a model; name it with --model MODEL.")
        if prompts is not None and not mean_displacement:
            raise UsageError("--prompts are for --mean-displacement; leave one out or add it.")

        from odesteer.artifact import from_pretrained
        from odesteer.cli.arguments.steerers import one_amount
        from odesteer.interchange import ControlVector, write_gguf, write_lm_eval

        amount = one_amount(level, T, strength, interpolation)
        steerer = from_pretrained(file)
        if amount is not None:
            with checking_usage():
                steerer.check_amount(amount)
        choice = ModelChoice(model, revision, device, dtype)
        hint = None if model is None else getattr(choice.config(screen), "model_type", None)
        kept = None
        if mean_displacement:
            mean = _mean(steerer, amount, choice, prompts, hint, screen)
            vector, kept = mean.vector, mean.kept
        else:
            vector = ControlVector.of(steerer, amount, hint)
        if to == "gguf":
            write_gguf(vector, output)
        else:
            write_lm_eval(vector, output)
        screen.rows(_rows(vector, kept, output))
        screen.document(
            {
                "exported": str(output),
                "to": to,
                "layers": list(vector.directions),
                "lengths": [float(v.norm()) for v in vector.directions.values()],
                "kept": None if kept is None else list(kept.values()),
            }
        )


def _mean(
    steerer: "Steerer | SteererSet",
    amount: "Amount | None",
    choice: ModelChoice,
    prompts: Path | None,
    hint: str | None,
    screen: Screen,
) -> "MeanDisplacement":
    from odesteer.interchange import mean_displacement
    from odesteer.interchange.control_vector import plain_site
    from odesteer.models.divergence import as_question, neutral_prompts

    layers = sorted({plain_site(member).layer for member in steerer.members})
    texts = neutral_prompts() if prompts is None else read_texts(prompts, "--prompts")
    with choice.opened(screen) as lm:
        for member in steerer.members:
            member.check_width(lm.width)
        screen.note(f"loaded {lm.model_id}; {len(texts)} prompts …")
        encoded = [lm.encode(as_question(lm, text)) for text in texts]
        last = [[len(prompt) - 1] for prompt in encoded]
        activations = lm.capturer().capture(encoded, last, layers)
        return mean_displacement(steerer, activations.states, amount, hint)


def _rows(
    vector: "ControlVector", kept: Mapping[int, float] | None, output: Path
) -> dict[str, str]:
    rows = {
        f"layer {layer}": f"length {float(direction.norm()):.4g}"
        + ("" if kept is None else f", {kept[layer]:.1%} of the squared displacement kept")
        for layer, direction in vector.directions.items()
    }
    return rows | {"saved": f"{output} ({output.stat().st_size:,} bytes)"}
