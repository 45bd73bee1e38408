"""``odesteer pairs``: write contrastive pairs for a concept by name."""

from pathlib import Path
from typing import Annotated

import typer

from odesteer.cli.arguments.concept import has_chats, report_pairs
from odesteer.cli.arguments.options import (
    BatchSize,
    ChatTemplateKwargs,
    Debug,
    Device,
    Dtype,
    Force,
    Json,
    Revision,
)
from odesteer.cli.arguments.prompts import read_texts
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.help import DATA, NETWORK
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_output
from odesteer.cli.output.screen import Screen


def pairs(
    positive: Annotated[str, typer.Argument(metavar="POSITIVE", help="The quality, as in polite.")],
    negative: Annotated[str, typer.Argument(metavar="NEGATIVE", help="Its opposite, as in rude.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the pairs.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that writes the answers.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible endpoint that writes them instead, up to /v1.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    endpoint_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name there.", rich_help_panel=NETWORK),
    ] = None,
    key_variable: Annotated[
        str,
        typer.Option(
            metavar="VAR", help="Environment variable with its key.", rich_help_panel=NETWORK
        ),
    ] = "OPENAI_API_KEY",
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts to answer, one a line; by default 120 neutral ones.",
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Answer the first N.", rich_help_panel=DATA),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Longest answer of a model.")
    ] = 60,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the model's sampling.")] = 0,
    batch_size: BatchSize = 16,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write contrastive pairs for a concept by name.

    Each prompt is answered in both ways; pairs are kept whose answers differ in the right
    direction, judged by the model's own likelihoods (an endpoint judges its own). A small model
    writes few usable pairs: read them. Examples:

    odesteer pairs polite rude --model ./my-model -o pairs.jsonl

    odesteer pairs formal casual --endpoint http://127.0.0.1:8000/v1 --endpoint-model big -o p.jsonl
    """
    with Screen(json=json, debug=debug) as screen:
        if (model is None) == (endpoint is None):
            raise UsageError("name the writer: --model MODEL, or --endpoint URL.")
        if (endpoint is None) != (endpoint_model is None):
            raise UsageError("--endpoint and --endpoint-model go together.")
        check_output(output, force=force)

        from odesteer.concepts import Concept, EndpointWriter, ModelWriter, write_pairs
        from odesteer.evaluation.judges.chat_endpoint import Endpoint
        from odesteer.files import write_file
        from odesteer.models.divergence import neutral_prompts

        with checking_usage():
            concept = Concept(positive, negative)
        asked = list(neutral_prompts()) if prompts is None else read_texts(prompts, "--prompts")
        asked = asked[:limit]
        chats = True
        if endpoint is not None:
            writer = EndpointWriter(Endpoint(endpoint, str(endpoint_model), key_variable))
            found = write_pairs(concept, writer, asked)
        else:
            choice = ModelChoice(model, revision, device, dtype, chat_template_kwargs)
            choice.n_layers(screen)
            with choice.opened(screen) as lm:
                screen.note(f"loaded {lm.model_id}; answering {len(asked)} prompts twice …")
                own = ModelWriter(
                    lm,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                    seed=seed,
                    progress=screen.is_interactive,
                )
                found, chats = write_pairs(concept, own, asked), has_chats(lm)
        counts = report_pairs(found, screen)
        write_file(output, found.to_jsonl(chats=chats).encode())
        prompt, good, bad = found.rows[0]
        screen.rows(
            {
                "prompt": prompt,
                concept.positive: good,
                concept.negative: bad,
                "saved": f"{output} ({len(found.rows)} pairs)",
            }
        )
        screen.write(
            f"\nNext:\n  odesteer fit MODEL --data {output} --layer N -o steerer.safetensors"
        )
        screen.document({"saved": str(output), "margins": list(found.margins), **counts})
