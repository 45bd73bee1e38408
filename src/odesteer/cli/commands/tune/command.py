"""``odesteer tune``: choose layer, amount and parameters on held-out data."""

import math
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Annotated, Any

import typer

from odesteer.cli.arguments.contrast import check_sources, read_data
from odesteer.cli.arguments.options import (
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
    Refinements,
    Revision,
    SteeredTokens,
    Subset,
    checked_position,
)
from odesteer.cli.commands.tune.at_cost import run_at_cost
from odesteer.cli.commands.tune.candidates import candidates_of
from odesteer.cli.commands.tune.layers import LayerRule, kept_layers
from odesteer.cli.commands.tune.objective import Proxy, data_and_objective
from odesteer.cli.commands.tune.report import (
    no_choice,
    progress,
    save_surface,
    score_json,
    show,
    warn_if_not_better,
)
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.help import DATA, SEARCH, STEERING
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_new_folder, check_output
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.steerers import describe
from odesteer.errors import InvalidInputError

DEFAULT_BUDGET = 0.1
_FILES = {"steerer": "steerer.safetensors", "surface": "surface.json", "plot": "surface.png"}
_JOURNAL = "journal.jsonl"


def tune(
    model: ModelArgument = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Contrastive data, as for: odesteer fit. Part of its groups is held out to select"
            " on.",
            rich_help_panel=DATA,
        ),
    ] = None,
    positive: Positive = None,
    negative: Negative = None,
    world: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead of data: truth, civility or mood, on the bundled model, with its exact"
            " judge.",
            rich_help_panel=DATA,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to save what it finds.")
    ] = Path("odesteer-tune"),
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Steering method; repeat it to choose among several.  [default: odesteer]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    param: Params = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A/B/…",
            help="Values of a parameter to choose among, as in barrier=linear/polynomial; repeat"
            " it to try all combinations.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="A decoder layer to try, counted from zero; repeat it.  [default: all, or eight"
            " between 15 and 85 percent of the depth]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    layer_rule: Annotated[
        LayerRule | None,
        typer.Option(
            help="Keep of these layers those whose class means lie on opposite sides of the origin"
            " along their difference, or all but the last fifth of the model's.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    amounts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUANTITY=A,B,…",
            help="Amounts to try, as in level=1,1.5,2 or strength=1,2,4.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            metavar="NATS",
            help="The most that steering may cost in fluency, nats a token on average.",
            rich_help_panel=SEARCH,
        ),
    ] = DEFAULT_BUDGET,
    kl: Annotated[
        float | None,
        typer.Option(
            "--kl",
            metavar="NATS",
            help="Instead of a budget: find the amount of every method and layer that costs this"
            " much KL to the unsteered model on neutral text, nats a token, and choose among them.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    objective: Annotated[
        Proxy | None,
        typer.Option(
            help="With data: judge what the steered model writes by a classifier learned from"
            " groups held out, or compare likelihoods of held-out responses.  [default: judge]",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=4, metavar="N", help="Validation prompts, at most.", rich_help_panel=SEARCH
        ),
    ] = 96,
    rungs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="How often prompts are added for the settings not yet given up; 1 measures every"
            " setting on every prompt.",
            rich_help_panel=SEARCH,
        ),
    ] = 3,
    refinements: Refinements = 1,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The longest continuation.  [default: 48]",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    column: Columns = None,
    duplicates: Duplicates = "drop",
    identical: Identical = "error",
    subset: Subset = None,
    split: DataSplit = None,
    position: Annotated[
        CapturePosition | None,
        typer.Option(
            help="Which tokens of each example to fit on.  [default: last]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    steer_position: SteeredTokens = "last",
    revision: Revision = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Of splits, fits and sampling.", rich_help_panel=SEARCH
        ),
    ] = 0,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Choose layer, amount and parameters on held-out data.

    Tries a coarse grid, gives up hopeless settings early, then looks around the best one. Saves
    the steerer fitted at the choice, all that was measured, and a plot of it. Run again with the
    same words after an interrupt, it goes on where it was. Examples:

    odesteer tune --world truth

    odesteer tune ./my-model --data pairs.jsonl --method odesteer --method caa --budget 0.1

    odesteer tune ./my-model --data pairs.jsonl --method caa --layer 15 --kl 0.1
    """
    with Screen(json=json, debug=debug) as screen:
        _check_options(locals())
        check_new_folder(output)
        files = {name: output / file for name, file in _FILES.items()}
        if output.exists():
            check_output(files["steerer"], force=force)
        steer_position = checked_position(steer_position)
        choice = ModelChoice(model, revision, device, dtype, chat_template_kwargs)

        from odesteer.data import ContrastData
        from odesteer.terrarium import world as world_named
        from odesteer.tuning import Halving, from_world
        from odesteer.tuning import tune as select

        with checking_usage():
            known = None if world is None else world_named(world)
            candidates = candidates_of(
                method or ["odesteer"], param or [], vary or [], amounts or [], seed
            )
        source = known or read_data(
            data,
            positive,
            negative,
            column=column or [],
            duplicates=duplicates,
            identical=identical,
            subset=subset,
            split=split,
        )
        if layer:
            choice.check_layers(layer, screen)
        if isinstance(source, ContrastData):
            choice.check_chats(source)
        if kl is not None:
            run_at_cost(
                screen,
                choice,
                source,
                candidates,
                layer,
                layer_rule,
                kl,
                proxy=objective or "judge",
                n_items=samples,
                max_new_tokens=max_new_tokens or 48,
                seed=seed,
                batch_size=batch_size,
                position=position or (known.position if known else "last"),
                steer_position=steer_position,
                folder=output,
            )
            return
        started = perf_counter()
        with choice.opened(screen) as lm:
            screen.note(f"loaded {lm.model_id} in {perf_counter() - started:.1f} s")
            started = perf_counter()
            fit_data, measured = data_and_objective(
                lm,
                source,
                objective or "judge",
                screen,
                n_items=samples,
                max_new_tokens=max_new_tokens or 48,
                seed=seed,
                batch_size=batch_size,
            )
            position = position or (known.position if known else "last")
            if layer_rule is not None:
                layer = kept_layers(
                    lm,
                    fit_data,
                    layer_rule,
                    layer,
                    position=position,
                    seed=seed,
                    batch_size=batch_size,
                    screen=screen,
                )
            output.mkdir(exist_ok=True)
            with progress(screen) as on_progress:
                found = select(
                    lm,
                    fit_data,
                    candidates,
                    measured,
                    layers=layer,
                    budget=budget,
                    halving=Halving(rungs=rungs),
                    refinements=refinements,
                    position=position,
                    steer_position=steer_position,
                    seed=seed,
                    batch_size=batch_size,
                    journal=output / _JOURNAL,
                    progress=on_progress,
                )
            surface, chosen = found.surface, found.surface.choice
            tested = None
            if known is not None and chosen is not None and found.steerer is not None:
                screen.note("measuring the choice on test prompts …")
                test = from_world(lm, known, "test", n_items=samples, seed=seed)
                tested = test.score(None), test.score(found.steerer, chosen.setting.amount)
        took = perf_counter() - started
        document = surface.to_json()
        if tested is not None:
            document["test"] = dict(
                zip(("unsteered", "steered"), map(score_json, tested), strict=True)
            )
        drawn = save_surface(files, surface, document, screen)
        if chosen is None or found.steerer is None:
            files["steerer"].unlink(missing_ok=True)  # left by an earlier run
            raise InvalidInputError(no_choice(surface, files["surface"]))
        found.steerer.save(files["steerer"])
        warn_if_not_better(surface)
        show(screen, surface, tested)
        screen.rows(
            {
                "took": f"{took:.0f} s",
                "saved": ", ".join(str(files[n]) for n in files if n != "plot" or drawn),
            }
        )
        amount = chosen.setting.amount
        screen.write(
            f"\nNext:\n  odesteer generate {choice.argument}--steer {quote(str(files['steerer']))}"
            f' --compare --{amount.quantity} {amount.value:g} "A PROMPT"'
        )
        screen.document(
            {
                "choice": {
                    "candidate": candidates[chosen.setting.candidate].label,
                    "layer": chosen.setting.layer,
                    amount.quantity: chosen.setting.value,
                    **score_json(chosen.score),
                },
                "unsteered": document["unsteered"],
                "test": document.get("test"),
                "objective": document["objective"],
                "settings": len(surface.rows),
                "seconds": took,
                "files": {n: str(files[n]) for n in files if n != "plot" or drawn},
                "steerer": describe(found.steerer),
            }
        )


def _check_options(given: dict[str, Any]) -> None:
    """Raise `UsageError` for options that do not go together."""
    if check_sources(given["data"], given["positive"], given["negative"]) == (
        given["world"] is not None
    ):
        raise UsageError("give --data FILE, or --world NAME for a world of the bundled model.")
    if given["world"] is not None:
        for name in ("model", "objective", "max_new_tokens", "column", "subset", "split"):
            if given[name]:
                option = "a model" if name == "model" else f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} ({given[name]}) does not go with --world, which is judged exactly on"
                    " the bundled model; use --data."
                )
    if given["kl"] is not None:
        if not 0 < given["kl"] < math.inf:
            raise UsageError(f"--kl {given['kl']}: give a positive number of nats a token.")
        if given["amounts"] or given["budget"] != DEFAULT_BUDGET:
            option = "--amounts" if given["amounts"] else "--budget"
            raise UsageError(f"{option} does not go with --kl, which finds amounts by their cost.")
    if not given["budget"] >= 0:
        raise UsageError(f"--budget {given['budget']}: give nats a token, from 0.")
