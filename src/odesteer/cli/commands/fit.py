"""``odesteer fit``: fit a steerer on contrastive data."""

from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from odesteer.cli.arguments.concept import has_chats, read_concept, report_pairs
from odesteer.cli.arguments.contrast import check_sources, read_data
from odesteer.cli.arguments.options import (
    DATA_HELP,
    BatchSize,
    CapturePosition,
    ChatTemplateKwargs,
    Columns,
    DataSplit,
    Debug,
    Device,
    Dtype,
    Duplicates,
    Force,
    Identical,
    Json,
    ModelArgument,
    Negative,
    Params,
    Positive,
    Revision,
    SteeredTokens,
    SteererFile,
    Subset,
    checked_position,
)
from odesteer.cli.arguments.prompts import read_texts
from odesteer.cli.arguments.training import trained_method
from odesteer.cli.errors import UsageError
from odesteer.cli.help import DATA, STEERING
from odesteer.cli.model.backend import Backend, EngineName, RayAddress, Workers, WorkerThreads
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_output
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.steerers import describe
from odesteer.cli.output.text import format_figures, format_nats

if TYPE_CHECKING:
    from odesteer.artifact import Steerer, SteererSet
    from odesteer.concepts import Concept
    from odesteer.data import ContrastData
    from odesteer.models import SteeredModel

LayerPart = Literal["residual", "heads", "final"]


def fit(
    layer: Annotated[
        list[int],
        typer.Option(
            metavar="N",
            help="Steer after this decoder layer, counted from zero; repeat it for several layers"
            " at once, each with a fit of its own, in one file.",
            rich_help_panel=STEERING,
        ),
    ],
    output: SteererFile,
    model: ModelArgument = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help=DATA_HELP, rich_help_panel=DATA)
    ] = None,
    positive: Positive = None,
    negative: Negative = None,
    concept: Annotated[
        str | None,
        typer.Option(
            metavar="A:B",
            help="Instead of data: a quality and its opposite, as in polite:rude; the model itself"
            " writes pairs of answers, see: odesteer pairs",
            rich_help_panel=DATA,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Steering method, see: odesteer methods.  [default: odesteer]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="Of end-to-end: the most it may cost, KL to the unsteered model on neutral text,"
            " nats a token.  [default: 0.1]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    distil: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instead of data: learn, end to end, to answer --prompts as the model does with"
            " this system prompt.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The prompts for --distil, a text a line or a JSON list.",
            rich_help_panel=DATA,
        ),
    ] = None,
    neutral: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of end-to-end: the prompts that the cost is measured on, instead of the bundled"
            " ones.",
            rich_help_panel=DATA,
        ),
    ] = None,
    choose_layer: Annotated[
        bool,
        typer.Option(
            "--choose-layer",
            help="Of end-to-end: train at each --layer alone, and keep the one with the lowest"
            " held-out loss, instead of training them together.",
            rich_help_panel=STEERING,
        ),
    ] = False,
    param: Params = None,
    column: Columns = None,
    duplicates: Duplicates = "drop",
    identical: Identical = "error",
    subset: Subset = None,
    split: DataSplit = None,
    part: Annotated[
        LayerPart,
        typer.Option(
            help="The output of the layer, the outputs of its attention heads, or, of the last"
            " layer, what the norm behind it gives to the head of the model.",
            rich_help_panel=STEERING,
        ),
    ] = "residual",
    position: Annotated[
        CapturePosition,
        typer.Option(help="Which tokens of each example to fit on.", rich_help_panel=STEERING),
    ] = "last",
    steer_position: SteeredTokens = "last",
    revision: Revision = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N", help="Of whatever is random in the fit.", rich_help_panel=STEERING
        ),
    ] = 0,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    engine: EngineName = "local",
    workers: Workers = None,
    worker_threads: WorkerThreads = None,
    ray_address: RayAddress = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a steerer on texts that do and do not show it.

    What can be refused is refused before the model is loaded. Examples:

    odesteer fit Qwen/Qwen2.5-0.5B-Instruct --data pairs.jsonl --layer 13 -o truthful.safetensors

    odesteer fit ./my-model --data pairs.csv --layer 8 --method caa -o caa.safetensors

    odesteer fit ./my-model --data p.jsonl --layer 8 --method end-to-end --kl 0.1 -o e.safetensors

    odesteer fit ./my-model --distil "Be brief." --prompts p.txt --layer 8 -o brief.safetensors

    odesteer fit ./my-model --positive glad.txt --negative sad.txt --layer 8 -o mood.safetensors
    """
    with Screen(json=json, debug=debug) as screen:
        has_data = check_sources(data, positive, negative)
        if (distil is None) != (prompts is None):
            raise UsageError("--distil TEXT and --prompts FILE belong together; give both.")
        if distil is not None and (has_data or concept is not None):
            raise UsageError("--distil learns from --prompts alone; leave the data out.")
        if has_data and concept is not None:
            raise UsageError("--concept writes its own data; leave it out, or the files.")
        if concept is not None and engine != "local":
            raise UsageError("--concept writes with the model in this process; leave out --engine.")
        if distil is None and concept is None and not has_data:
            raise UsageError(
                "there are no data; give --data FILE, or --positive and --negative, or"
                " --concept polite:rude."
            )
        named = None if concept is None else read_concept(concept)
        check_output(output, force=force)
        steer_position = checked_position(steer_position)
        choice = ModelChoice(model, revision, device, dtype, chat_template_kwargs)
        backend = Backend(engine, workers, worker_threads, ray_address)

        unfitted = trained_method(method, param or [], seed, kl, distil)
        if neutral is not None and not unfitted.needs_model:
            raise UsageError("--neutral is for --method end-to-end; leave it out.")
        if choose_layer and not unfitted.needs_model:
            raise UsageError(
                "--choose-layer is for --method end-to-end; odesteer tune chooses for the others."
            )
        if choose_layer and len(layer) < 2:
            raise UsageError("--choose-layer chooses among layers; repeat --layer N.")
        examples: ContrastData | list[str] = []
        if prompts is not None:
            examples = read_texts(prompts, "--prompts")
        elif named is None:
            examples = read_data(
                data,
                positive,
                negative,
                column=column or [],
                duplicates=duplicates,
                identical=identical,
                subset=subset,
                split=split,
            )
        measured_on = None if neutral is None else read_texts(neutral, "--neutral")
        choice.check_layers(layer, screen)
        if not isinstance(examples, list):
            choice.check_chats(examples)
        started = perf_counter()
        with backend.started() as cluster, choice.opened(screen, cluster) as lm:
            ready = f"loaded {lm.model_id}" if cluster is None else f"started {cluster}"
            screen.note(f"{ready} in {perf_counter() - started:.1f} s; fitting …")
            if named is not None:
                examples = _written(named, lm, batch_size, seed, screen)
            started = perf_counter()
            chosen: dict[str, Any] = {"choose_layer": True} if choose_layer else {}
            steerer = lm.fit(
                unfitted,
                examples,
                layer if len(layer) > 1 else layer[0],
                part=part,
                position=position,
                steer_position=steer_position,
                seed=seed,
                batch_size=batch_size,
                progress=screen.is_interactive,
                neutral=measured_on,
                **chosen,
            )
            took = perf_counter() - started
        steerer.save(output)
        for member in steerer.members:
            screen.rows(_summary(member))
        screen.rows(
            {
                "fitted in": f"{took:.1f} s",
                "saved": f"{output} ({output.stat().st_size:,} bytes)",
            }
        )
        screen.write(f"\nNext:\n{_next_commands(choice, steerer, output)}")
        screen.document(
            {
                "saved": str(output),
                "bytes": output.stat().st_size,
                "fit_seconds": took,
                **describe(steerer),
            }
        )


def _written(
    concept: "Concept", lm: "SteeredModel", batch_size: int, seed: int, screen: Screen
) -> "ContrastData":
    """Pairs for a concept that the model itself writes."""
    from odesteer.concepts import ModelWriter, write_pairs
    from odesteer.models.divergence import neutral_prompts

    screen.note(f"writing {concept.positive} and {concept.negative} answers …")
    writer = ModelWriter(lm, batch_size=batch_size, seed=seed, progress=screen.is_interactive)
    found = write_pairs(concept, writer, neutral_prompts())
    report_pairs(found, screen)
    return found.contrast(chats=has_chats(lm))


def _summary(steerer: "Steerer") -> dict[str, str]:
    from odesteer.barriers import Potential

    origin, site = steerer.provenance, steerer.site
    barrier = getattr(steerer.method, "barrier", None)
    rows = {
        "method": f"{type(steerer.method).__name__}, by default {steerer.method.default_amount}",
        "model": f"{origin.model_id}, width {steerer.width}, {origin.n_layers} layers",
        "site": f"{site}; fitted on positions: {origin.capture_position or 'those steered'}",
        "examples": f"{origin.n_positive} positive, {origin.n_negative} negative",
    }
    rows |= format_figures(origin.held_out)
    if isinstance(barrier, Potential):
        rows["T 1"] = f"the cost asked for; h rises by {format_nats(barrier.upper_)} in the mean"
    elif barrier is not None:
        rows["levels"] = (
            f"1 is h = {format_nats(barrier.upper_)}, where the best 10 % of the positives begin;"
            f" -1 is h = {format_nats(barrier.lower_)}"
        )
    rows["mean norm"] = f"{steerer.method.mean_norm_:.4g} activation units"
    rows["strength 1"] = f"{steerer.method.strength_unit:.4g} activation units"
    return rows


def _next_commands(choice: ModelChoice, steerer: "Steerer | SteererSet", output: Path) -> str:
    amount = steerer.members[0].method.default_amount
    return (
        f"  odesteer generate {choice.argument}--steer {quote(str(output))} --compare"
        f' --{amount.quantity} {amount.value} "A PROMPT"\n'
        f"  odesteer inspect {quote(str(output))}"
    )
