"""``odesteer demo``: fit and steer in three worlds with the bundled model, offline."""

import os
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from odesteer.cli.arguments.options import Debug, Json
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_new_folder
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.text import format_nats, readable, side_by_side
from odesteer.errors import MissingDependencyError

if TYPE_CHECKING:
    from odesteer.cli.commands.demo.speed import Speed
    from odesteer.cli.commands.demo.world_trial import WorldTrial
    from odesteer.models import SteeredModel

_N_SHOWN = 2
_N_PAIRS = 150
_N_TIMED, _TOKENS_TIMED, _ROUNDS = 32, 48, 3


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to save what it makes.")
    ] = Path("odesteer-demo"),
    samples: Annotated[
        int, typer.Option(min=_N_SHOWN, metavar="N", help="Test prompts in each world.")
    ] = 100,
    seed: Annotated[int, typer.Option(metavar="N", help="Of data, fits and sampling.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """See in a minute what steering does, offline.

    Fits a steerer in each of the three worlds of the bundled model and continues test prompts
    unsteered, steered, and steered the other way. Exact judges say of each text whether it shows
    the attribute and whether the world could have said it.
    """
    with Screen(json=json, debug=debug) as screen:
        began = perf_counter()
        check_new_folder(output)
        screen.note("loading the bundled model …")

        from odesteer.cli.commands.demo.speed import measure_speed
        from odesteer.cli.commands.demo.world_trial import try_world
        from odesteer.methods import ODESteer
        from odesteer.terrarium import worlds

        with ModelChoice(None).opened(screen) as lm:
            screen.print(_introduction(lm.model.num_parameters(), samples), "")
            trials, files = [], {}
            for world in worlds():
                trial = try_world(
                    lm, world, ODESteer(), n_pairs=_N_PAIRS, n_samples=samples, seed=seed
                )
                trials.append(trial)
                files[world.name] = output / f"{world.name}.safetensors"
                output.mkdir(exist_ok=True)
                trial.steerer.save(files[world.name])
                _show_world(screen, trial)
            screen.note("measuring speed …")
            last = trials[-1]
            speed = measure_speed(
                lm,
                last.steerer,
                (last.prompts * _N_TIMED)[:_N_TIMED],
                level=last.level,
                tokens=_TOKENS_TIMED,
                rounds=_ROUNDS,
            )
            plot = _plot(screen, output / "demo.png", lm, trials, seed)
        took = perf_counter() - began
        screen.print(_table(trials), _speed(speed, took, samples), "")
        saved = [*files.values(), *([] if plot is None else [plot])]
        screen.write(f"Saved in {output}: {', '.join(path.name for path in saved)}")
        screen.write(f"\nNext:\n{_next_commands(trials, files)}")
        screen.document(
            {
                "seed": seed,
                "samples": samples,
                "worlds": {t.world.name: t.to_json(files[t.world.name]) for t in trials},
                "speed": {**asdict(speed), "change": speed.change},
                "plot": None if plot is None else str(plot),
                "seconds": took,
            }
        )


def _introduction(n_parameters: int, samples: int) -> Text:
    return Text.assemble(
        ("odesteer demo", "bold"),
        f"\nA language model of {n_parameters / 1e6:.1f} million parameters learned from texts"
        " whose authors were careful or careless, polite or rude, cheerful or gloomy, and never"
        " said which. In each of these three worlds a steerer is fitted on pairs of texts, and then"
        f" test prompts that it has not seen are continued, {samples} in each world.",
    )


def _show_world(screen: Screen, trial: "WorldTrial") -> None:
    world, figures = trial.world, trial.steerer.provenance.held_out
    positive, negative = world.poles
    quality = f", held-out AUC {figures['auc']:.2f}" if "auc" in figures else ""
    screen.print(
        Text.assemble(
            ("── ", "cyan"),
            (world.name, "bold cyan"),
            (" ── ", "cyan"),
            world.title,
            (
                f"\n{trial.n_pairs} pairs, layer {world.layer}, fitted in"
                f" {trial.fit_seconds:.1f} s{quality}",
                "dim",
            ),
        ),
        "",
    )
    headings = {
        "unsteered": "unsteered",
        "steered": f"{positive}: level {trial.level:g}",
        "opposite": f"{negative}: level {trial.opposite:g}",
    }
    for i, prompt in enumerate(trial.prompts[:_N_SHOWN]):
        screen.print(Text(prompt, style="italic"))
        columns = {h: readable(trial.arms[name].texts[i].text) for name, h in headings.items()}
        footers = {h: _verdict(trial, name, i) for name, h in headings.items()}
        screen.print(side_by_side(columns, footers), "")


def _verdict(trial: "WorldTrial", arm: str, i: int) -> Text:
    """The verdict below a text; green where steering succeeded, red where it did not."""
    style = "dim"
    if arm != "unsteered":
        style = "green" if trial.succeeds(arm, i) else "red"
    return Text(f"→ {trial.verdict(arm, i)}", style=style)


def _table(trials: "list[WorldTrial]") -> Table:
    """Rates of all worlds: a block of rows a world, a column an arm."""
    table = Table(
        title="What the judges say of all completions",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("world")
    table.add_column("")
    for heading in ("unsteered", "steered", "the other way"):
        table.add_column(heading, justify="right")
    for trial in trials:
        positive, negative = trial.world.poles
        arms = list(trial.arms.values())
        rates = [arm.rates for arm in arms]

        def shares(*values: float) -> list[str]:
            return [f"{value:.0%}" for value in values]

        table.add_row(
            Text(trial.world.name, style="bold"), positive, *shares(*(r.attribute for r in rates))
        )
        table.add_row("", "valid", *shares(*(r.validity for r in rates)))
        table.add_row(
            "",
            Text(f"{positive} and valid", style="bold"),
            *(Text(s, style="bold") for s in shares(*(r.joint for r in rates))),
        )
        table.add_row("", f"{negative} and valid", *shares(*(r.negative_joint for r in rates)))
        table.add_row(
            "",
            "mean barrier h, nats",
            *(_format_barrier(arm.barrier) for arm in arms),
            end_section=True,
        )
    return table


def _format_barrier(barrier: tuple[float, float] | None) -> str:
    return "" if barrier is None else f"{format_nats(barrier[0])} → {format_nats(barrier[1])}"


def _speed(speed: "Speed", took: float, samples: int) -> Text:
    error = 0.5 / samples**0.5
    return Text(
        f"Standard error of a share: at most {error:.0%}. Tokens a second, {speed.batch_size} texts"
        f" at a time: {speed.unsteered:,.0f} unsteered, {speed.steered:,.0f} steered"
        f" ({speed.change:+.0%}). All of this took {took:.0f} s."
    )


def _plot(
    screen: Screen, path: Path, lm: "SteeredModel", trials: "list[WorldTrial]", seed: int
) -> Path | None:
    from odesteer.cli.commands.demo.plot import save_plot

    screen.note("drawing …")
    try:
        save_plot(path, lm, trials, seed)
    except MissingDependencyError as error:
        screen.note(f"no plot was drawn: {error}")
        return None
    return path


def _next_commands(trials: "list[WorldTrial]", files: dict[str, Path]) -> str:
    commands = [
        f"  odesteer generate --steer {quote(str(files[trial.world.name]))} --compare"
        f" {_shell_word(trial.prompts[0])}"
        for trial in trials
    ]
    first = quote(str(files[trials[0].world.name]))
    commands += [
        f"  odesteer inspect {first}",
        "  odesteer fit MODEL --data pairs.jsonl --layer 12 -o mine.safetensors"
        "     # your own model and data",
    ]
    return os.linesep.join(commands)


def _shell_word(prompt: str) -> str:
    """A prompt quoted for a shell, line ends as backslash-n."""
    return quote(prompt.replace("\\", "\\\\").replace("\n", "\\n"))
