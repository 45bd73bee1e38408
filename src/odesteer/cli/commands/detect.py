"""``odesteer detect``: whether texts carry a watermark."""

from dataclasses import asdict
from typing import Annotated

import typer

from odesteer.cli.arguments.options import Debug, Device, Json, Revision
from odesteer.cli.arguments.prompts import model_and_prompts, read_prompts
from odesteer.cli.errors import UsageError
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.screen import Screen


def detect(
    model_and_texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] TEXT...",
            help="The model whose tokenizer is used, and texts without their prompts; - reads them"
            " from stdin, one a line.",
            show_default=False,
        ),
    ] = None,
    watermark: Annotated[
        str,
        typer.Option(
            metavar="MARK",
            help="What to look for, as it was given to generate: greenlist, JSON or a JSON file.",
        ),
    ] = "greenlist",
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="Z", help="z above which a text counts.")
    ] = 3.0,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model, if no argument is.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell whether texts carry a watermark.

    Counts the green tokens, or SynthID's mean g-value, repeated n-grams once; no detector has to be
    trained. The key must be that of generation, and for green lists the kind of device too. z is in
    standard errors: 3 is exceeded by 1 in 740 texts without a watermark.

    odesteer detect ./my-model --watermark mark.json "The text in question, some dozen words of it."
    """
    with Screen(json=json, debug=debug) as screen:
        name, rest = model_and_prompts(model_and_texts or [], model)
        texts = read_prompts(rest, raw=True)
        choice = ModelChoice(name, revision, device)

        from odesteer.cli.arguments.watermark import read_watermark
        from odesteer.errors import InvalidInputError
        from odesteer.models.architecture.loading import load_outline
        from odesteer.models.generation.watermark import WatermarkDetection

        config = read_watermark(watermark)
        choice.config(screen)
        outline, tokenizer = load_outline(choice.source, revision=revision)
        detection = WatermarkDetection(config, outline.config, device or "cpu")
        results = []
        for number, text in enumerate(texts, start=1):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            try:
                score = detection.score(ids)
            except InvalidInputError as error:
                raise UsageError(f"text {number}: {error}") from error
            found = score.z > threshold
            screen.rows(
                {
                    f"text {number}": "watermarked" if found else "no sign of this watermark",
                    "  z": f"{score.z:.2f} (p = {score.p:.2g})",
                    "  share": f"{score.share:.3f}, {score.expected:g} without a watermark",
                    "  tokens": str(score.n_tokens),
                }
            )
            results.append({"text": text, "watermarked": found, **asdict(score)})
        screen.document({"threshold": threshold, "results": results})
