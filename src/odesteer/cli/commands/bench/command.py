"""``odesteer bench``: compare methods on a suite of tasks, each at its own best setting."""

from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from odesteer.cli.arguments.options import (
    ChatTemplateKwargs,
    Columns,
    Debug,
    Device,
    Dtype,
    Duplicates,
    Identical,
    Json,
    Refinements,
    Revision,
)
from odesteer.cli.commands.bench import arguments
from odesteer.cli.commands.bench.paper import PaperOptions, PaperRun
from odesteer.cli.commands.bench.paper_report import show_outcome, show_plan_of_paper
from odesteer.cli.commands.bench.report import progress, show, show_equal_cost, show_plan
from odesteer.cli.errors import UsageError
from odesteer.cli.help import DATA, JUDGES, MACHINE, PAPER, SEARCH, STEERING
from odesteer.cli.model.backend import (
    Backend,
    EngineName,
    RayAddress,
    Workers,
    WorkerThreads,
    with_workers,
)
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.evaluation.equal_cost import EqualCostRow
    from odesteer.evaluation.report import SummaryRow

_BUNDLED = "odesteer-terrarium"
_COSTS = (0.05, 0.1, 0.3)


def bench(
    suite: Annotated[
        str,
        typer.Argument(
            help="terrarium, terrarium-hard, persona, truthfulqa, detox, sentiment, ultrafeedback,"
            " realtoxicityprompts or contrast.",
            show_default=False,
        ),
    ] = "terrarium",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Hub id or folder.  [default: the bundled model]",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to save.  [default: bench-SUITE]"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Data in its published format.  [default: from the hub]",
            rich_help_panel=DATA,
        ),
    ] = None,
    column: Columns = None,
    duplicates: Duplicates = "drop",
    identical: Identical = "error",
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…", help="Rows of the table.  [default: all]", rich_help_panel=STEERING
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this task of the suite; may be given several times.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|S,S,…",
            help="How many, or which, as in 42,43.  [default: 3; quick: 1]",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    at_kl: Annotated[
        str | None,
        typer.Option(
            metavar="NATS,…|none",
            help="Compare all methods at these costs: KL to the unsteered model, nats a token."
            "  [default: 0.05,0.1,0.3; bundled: none]",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    cost_texts: Annotated[
        int,
        typer.Option(
            min=2,
            max=40,
            metavar="N",
            help="Neutral prompts that the cost is measured on.",
            rich_help_panel=SEARCH,
        ),
    ] = 40,
    best: Annotated[
        bool,
        typer.Option(
            "--best/--no-best",
            help="Choose and report each method's best setting as well.",
            rich_help_panel=SEARCH,
        ),
    ] = True,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="L,…",
            help="To begin with, or all.  [default: the task's own, and then those beside it]",
            rich_help_panel=STEERING,
        ),
    ] = None,
    amounts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUANTITY=X,…",
            help="To begin with: level, T, strength or interpolation; may be given several times.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD.NAME=A/B/…",
            help="Values of a parameter to choose among, as in odesteer.barrier=linear/polynomial;"
            " may be given several times.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    refinements: Refinements = 1,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The most test items of each fold and seed.",
            rich_help_panel=DATA,
        ),
    ] = None,
    fit_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The most pairs or questions to fit on.",
            rich_help_panel=DATA,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The first N folds of each task only.",
            rich_help_panel=DATA,
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Repeat arXiv 2602.17560 with one of its models, published figures beside"
            " measured ones: llama-3.1-8b, falcon-7b, mistral-7b-v0.3 or qwen2.5-7b. --model"
            " names one that stands in its place.",
            rich_help_panel=PAPER,
        ),
    ] = None,
    table: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --paper: table 2, 3, 5, 6, 7, 8 or 9.  [default: 2]",
            rich_help_panel=PAPER,
        ),
    ] = None,
    figure: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --paper: figure 2, 3, 4, 5 or 6.", rich_help_panel=PAPER
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Little data, one seed.", rich_help_panel=DATA)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and do nothing.")
    ] = False,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="NAME",
            help="Instead of the suite's; may be given several times.",
            rich_help_panel=JUDGES,
        ),
    ] = None,
    judge_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME.OPTION=VALUE",
            help="Of a judge; may be given several times.",
            rich_help_panel=JUDGES,
        ),
    ] = None,
    perplexity_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What perplexity is measured under.  [default: MODEL itself]",
            rich_help_panel=JUDGES,
        ),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            metavar="NATS",
            help="What a setting may cost in fluency, nats a token.",
            rich_help_panel=SEARCH,
        ),
    ] = 0.5,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Put prompts through the model's chat template.", rich_help_panel=MACHINE
        ),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Prompts at a time.  [default: 16; bundled: 100]",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    engine: EngineName = "local",
    workers: Workers = None,
    worker_threads: WorkerThreads = None,
    ray_address: RayAddress = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare methods, each at its own best.

    On a suite of tasks, at settings chosen on validation.

    Interrupt it whenever you like: the same command goes on where it stopped.

    Examples:

    odesteer bench terrarium --quick

    odesteer bench truthfulqa --model Qwen/Qwen2.5-0.5B-Instruct --chat --methods odesteer,caa

    odesteer bench contrast --model Qwen/Qwen2.5-0.5B --data pairs.jsonl --layers 8,12,16

    odesteer bench --paper llama-3.1-8b --task truthfulqa --dry-run
    """
    with Screen(json=json, debug=debug) as screen:
        if paper is not None:
            unused = {"--methods": methods, "--vary": vary, "--chat": chat, "--quick": quick}
            for option in [option for option, value in unused.items() if value]:
                raise UsageError(f"{option} does not go with --paper, which has rows of its own.")
            if engine != "local":
                raise UsageError(f"--engine {engine} does not go with --paper.")
            named = (suite,) if suite != "terrarium" else ()
            run = PaperRun(
                screen,
                PaperOptions(
                    paper,
                    table,
                    figure,
                    tuple(dict.fromkeys((*named, *(task or ())))),
                    ModelChoice(model, revision, device, dtype),
                    Path(f"bench-{paper}") if output is None else output,
                    data,
                    layer=arguments.one_layer(layers),
                    lengths=arguments.lengths(amounts) if amounts else None,
                    seeds=None if seeds is None else arguments.seeds_of_paper(seeds),
                    limit=limit,
                    fit_limit=fit_limit,
                    judges=None if judge is None else tuple(judge),
                    judge_options=arguments.judge_options(judge_option or []),
                    perplexity_model=perplexity_model,
                    batch_size=batch_size,
                    dry_run=dry_run,
                ),
            )
            if dry_run:
                show_plan_of_paper(screen, run)
                return
            arguments.check_folder(run.options.folder)
            show_outcome(screen, run, run.run())
            return
        given = {"--table": table, "--figure": figure}
        for option in [option for option, choice in given.items() if choice is not None]:
            raise UsageError(f"{option} goes with --paper; say --paper llama-3.1-8b as well.")
        folder = Path(f"bench-{suite}") if output is None else output
        choice = ModelChoice(model, revision, device, dtype, chat_template_kwargs)
        backend = Backend(engine, workers, worker_threads, ray_address)
        numbers, every = arguments.layers(layers)
        request = arguments.request(
            suite=suite,
            model=_BUNDLED
            if model is None
            else Path(model).name
            if Path(model).exists()
            else model,
            data=data,
            quick=quick,
            limit=limit,
            fit_limit=fit_limit,
            only_tasks=None if not task else tuple(task),
            folds=folds,
            methods=None if methods is None else arguments.comma_separated(methods),
            seeds=None if seeds is None else arguments.seeds(seeds),
            layers=numbers,
            every_layer=every,
            amounts=arguments.amounts(amounts) if amounts else None,
            variants=arguments.variants(vary or []),
            judges=None if judge is None else tuple(judge),
            judge_options=arguments.judge_options(judge_option or []),
            perplexity_model=perplexity_model,
            chat=chat,
            data_options=arguments.data_options(suite, column or [], duplicates, identical),
            budget=budget,
            refinements=refinements,
            at_kl=arguments.costs(at_kl, default=() if model is None else _COSTS),
            cost_texts=cost_texts,
            best=best,
        )
        if suite.startswith("terrarium") and model is not None:
            raise UsageError(
                "the terrarium's texts are those of the bundled model; leave out --model, or"
                " choose another suite."
            )
        size = batch_size or (100 if model is None else 16)
        if not dry_run:
            arguments.check_folder(folder)
        tasks = request.tasks()
        if dry_run:
            n_layers = choice.n_layers(screen)
            if n_layers is None:
                raise UsageError(
                    "the model's configuration does not say how many layers it has; leave out"
                    " --dry-run."
                )
            plan = request.plan(tasks, n_layers)
            panel = request.judge_panel(None, tasks, size)
            show_plan(screen, plan, panel, bundled=model is None, at_kl=request.at_kl)
            return
        began = perf_counter()
        # Raises for judges with invalid options, before a model is loaded.
        request.judge_panel(None, tasks, size)
        with backend.started() as cluster, choice.opened(screen) as own:
            from odesteer.evaluation.equal_cost import (
                EqualCostComparison,
                html_section,
                write_equal_cost,
            )
            from odesteer.evaluation.report import about_model, write_report
            from odesteer.evaluation.runner import Runner

            lm, completions = with_workers(own, choice, cluster)
            if chat and not getattr(lm.tokenizer, "chat_template", None):
                raise UsageError(f"--chat: {request.model} has no chat template; leave it out.")
            plan = request.plan(tasks, lm.n_layers, lm)
            for name, n in plan.left_out.items():
                screen.note(f"{name}: {n} texts are longer than the model's context and left out")
            judges = request.judge_panel(lm, tasks, size)
            for name, reason in judges.unavailable.items():
                screen.note(f"not judged by {name}: {reason}")
            title = f"odesteer bench {suite}, {request.model}"
            about = {**request.about(), **about_model(lm)}
            rows: list[EqualCostRow] = []
            lines: list[SummaryRow] = []
            if request.at_kl:
                comparison = EqualCostComparison(
                    lm,
                    plan,
                    judges,
                    folder,
                    targets=request.at_kl,
                    n_texts=request.cost_texts,
                    on_note=screen.note,
                )
                with progress(screen) as on_progress:
                    curves = comparison.measure(size, on_progress, completions)
                rows = write_equal_cost(comparison, curves, plan, folder, title=title, about=about)
            if request.best:
                with progress(screen) as on_progress:
                    runner = Runner(
                        lm,
                        plan,
                        judges,
                        folder,
                        batch_size=size,
                        on_progress=on_progress,
                        executor=completions,
                        on_note=screen.note,
                    )
                    outcome = runner.run()
                screen.note("writing the report …")
                opening = html_section(comparison, plan, rows, folder) if request.at_kl else ""
                lines = write_report(outcome, folder, title=title, about=about, opening=opening)
        if request.at_kl:
            show_equal_cost(screen, comparison, plan, rows)
        if request.best:
            show(screen, outcome, lines)
        page = "report.html" if request.best else "equal-cost.md"
        screen.write(f"Saved in {folder}; open {quote(str(folder / page))}")
        screen.document(
            {
                "suite": suite,
                "model": request.model,
                "folder": str(folder),
                "equal_cost": [row.to_json() for row in rows],
                "lines": [line.to_json() for line in lines],
                "unavailable_judges": judges.unavailable,
                "seconds": perf_counter() - began,
            }
        )
