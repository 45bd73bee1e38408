"""Which barrier, metric and stopping rule steers best, on the bundled model with exact judges.

    python -m studies.barriers [--tasks worlds|state] [--json FILE] [--quick]

``worlds`` are the three of the terrarium; ``state`` are two tasks in which one steerer has to move
different states in different directions. For each setup (a method and its amounts) and task, the
layer and the position of capture and then the amount are chosen on validation prompts by the search
of `odesteer.tuning`; the joint attribute-and-validity rate is then measured on other validation
prompts, since test prompts are for `odesteer bench` and no default is chosen on them, over several
seeds (of the data that the steerer is fitted to, of the prompts, of the sampling). Beside it stands
the untuned rate, at the task's own layer and position and the setup's first amount.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarks.machine import describe_machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from odesteer import CAA, Amount, Method, ODESteer, Site, SteeredModel, Steerer
from odesteer.barriers import (
    Centred,
    LinearBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    Standardized,
    UnitSphere,
)
from odesteer.flows import Covariance, Euler, Geodesic
from odesteer.methods import Spherical
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.terrarium import model_path, worlds
from odesteer.tuning import Candidate, Halving, Measurement, Search, SearchResults, SettingResult
from studies.joint import Rates, complete
from studies.tasks import Activations, EveryTask, RolesTask, Task, WorldTask

POSITIONS: tuple[CapturePosition, ...] = ("random_answer", "last")
LEVELS = tuple(Amount("level", level) for level in (1.5, 1.0, 2.0))
STRENGTHS = tuple(Amount("strength", s) for s in (2.5, 1.0, 1.75, 3.5, 5.0))


@dataclass(frozen=True)
class Setup:
    """A method and the amounts to choose from, the untuned one first."""

    name: str
    method: Method
    amounts: tuple[Amount, ...]


def setups() -> tuple[Setup, ...]:
    """Everything compared."""
    sphere = UnitSphere()
    smooth, sharp = PolynomialBarrier(inputs=sphere), PolynomialBarrier(C=100.0, inputs=sphere)
    centred = PolynomialBarrier(gamma=1.0, C=10.0, inputs=Centred())
    damped = PolynomialBarrier(C=10.0, inputs=Standardized(1.0))
    grid = tuple(10.0**k for k in range(-1, 5))
    chosen = PolynomialBarrier(C=grid, inputs=sphere)
    one_step, many = Euler(1), Euler(30)
    levels, strengths = LEVELS, STRENGTHS
    return (
        Setup("mean difference, fixed strength", CAA(), strengths),
        Setup("mean difference, clamped at a level", CAA(), levels),
        Setup("paper (sketch), fixed strength", ODESteer.paper(), strengths),
        Setup("paper kernel, exact, fixed strength", ODESteer(smooth), strengths),
        Setup("paper kernel, exact, one step", ODESteer(smooth, one_step), strengths),
        Setup("paper kernel, one step, level", ODESteer(smooth, one_step), levels),
        Setup("paper kernel, 10 Euler steps, level", ODESteer(smooth), levels),
        Setup("paper kernel, 30 Euler steps, level", ODESteer(smooth, many), levels),
        Setup("paper kernel, 10 geodesic steps, level", ODESteer(smooth, Geodesic()), levels),
        Setup("C = 100, level", ODESteer(sharp), levels),
        Setup("C by cross-validation, level", ODESteer(chosen), levels),
        Setup("centred, C = 10, level", ODESteer(centred), levels),
        Setup("centred, covariance metric, level", ODESteer(centred, metric=Covariance()), levels),
        Setup("default: the inputs that see, level", ODESteer(), levels),
        Setup("damped C = 10, level", ODESteer(damped), levels),
        Setup("ODESteer.standardized(), level", ODESteer.standardized(), levels),
        Setup("degree 3, level", ODESteer(PolynomialBarrier(degree=3, inputs=sphere)), levels),
        Setup("linear, logistic, level", ODESteer(LinearBarrier()), levels),
        Setup(
            "linear on the sphere, logistic, level",
            ODESteer(PolynomialBarrier(degree=1, inputs=sphere)),
            levels,
        ),
        Setup("spherical (mean difference), level", Spherical(), levels),
        Setup("neural, level", ODESteer(NeuralBarrier()), levels),
    )


@dataclass(frozen=True)
class Result:
    """What was measured of one setup at one task."""

    candidate: str
    task: str
    layer: int
    position: str
    amount: str
    validation: float
    tuned: Rates
    untuned: Rates
    auc: float | None
    log_loss: float | None


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    layers: tuple[int, ...] = (3, 4, 5)
    seeds: tuple[int, ...] = (1, 2, 3)
    n_validation: int = 50
    n_test: int = 100


def measure(lm: SteeredModel, task: Task, setup: Setup, sizes: Sizes) -> Result:
    """Choose on validation prompts of one seed, measure on those of others."""
    method, amounts = setup.method, setup.amounts
    positions = tuple(dict.fromkeys((task.position, *POSITIONS)))
    where = search(lm, task, method, sizes, positions, sizes.layers, amounts[:1])
    position = positions[where.setting.candidate]
    chosen = search(lm, task, method, sizes, (position,), (where.setting.layer,), amounts)
    layer, amount = chosen.setting.layer, chosen.setting.amount
    tuned, untuned, quality = [], [], []
    for seed in sizes.seeds:
        test = task.prompts("validation", seed=seed, n=sizes.n_test)
        (steerer,) = fit(lm, task, method, (layer,), position, seed).values()
        (default,) = fit(lm, task, method, (task.layer,), task.position, seed).values()
        tuned += complete(lm, task, test, steerer, amount, seed)
        untuned += complete(lm, task, test, default, amounts[0], seed)
        quality.append(default.barrier.held_out_ or {})
    assert chosen.score is not None
    return Result(
        setup.name,
        task.name,
        layer,
        position or "each world's own",
        str(amount),
        chosen.score.value,
        Rates.of(tuned),
        Rates.of(untuned),
        _mean([q.get("auc") for q in quality]),
        _mean([q.get("log_loss") for q in quality]),
    )


def search(
    lm: SteeredModel,
    task: Task,
    method: Method,
    sizes: Sizes,
    positions: Sequence[CapturePosition | None],
    layers: tuple[int, ...],
    amounts: Sequence[Amount],
) -> SettingResult:
    """The best position (the number of the candidate), layer and amount on validation prompts."""
    prompts = task.prompts("validation", seed=0, n=sizes.n_validation)
    quantity, values = amounts[0].quantity, tuple(float(amount.value) for amount in amounts)
    running = Search(
        [Candidate(str(position), method, quantity, values) for position in positions],
        len(prompts),
        layers,
        layers,
        budget=math.inf,
        halving=Halving(rungs=1),
        refinements=0,
    ).run([Measurement(None, 0.0)] * len(prompts))
    fitted = {
        (number, layer): steerer
        for number, position in enumerate(positions)
        for layer, steerer in fit(lm, task, method, layers, position, 0).items()
    }
    try:
        request = next(running)
        while True:
            answers = {}
            for setting in request.settings:
                steerer = fitted[setting.candidate, setting.layer]
                judged = complete(lm, task, prompts, steerer, setting.amount, seed=0)
                answers[setting] = [Measurement(float(j.verdict.achieves()), 0.0) for j in judged]
            request = running.send(answers)
    except StopIteration as end:
        results: SearchResults = end.value
    assert results.choice is not None
    return results.choice


def fit(
    lm: SteeredModel,
    task: Task,
    method: Method,
    layers: tuple[int, ...],
    position: CapturePosition | None,
    seed: int,
) -> dict[int, Steerer]:
    """One steerer a layer."""
    return {
        layer: Steerer(method.clone().fit(a.positive, a.negative, a.groups), Site(layer))
        for layer, a in _activations(lm, task, layers, position, seed).items()
    }


@cache
def _activations(
    lm: SteeredModel,
    task: Task,
    layers: tuple[int, ...],
    position: CapturePosition | None,
    seed: int,
) -> dict[int, Activations]:
    return task.activations(lm, layers, position, seed)


def unsteered(lm: SteeredModel, task: Task, sizes: Sizes) -> Rates:
    """The rate without any steering."""
    return Rates.of(
        [
            judged
            for seed in sizes.seeds
            for judged in complete(
                lm, task, task.prompts("validation", seed=seed, n=sizes.n_test), None, None, seed
            )
        ]
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def show(console: Console, results: list[Result], baselines: dict[str, Rates]) -> None:
    """One table a task, best first, and the means over tasks."""
    for task, baseline in baselines.items():
        table = Table(
            "candidate",
            "joint, tuned",
            "layer",
            "position",
            "amount",
            "joint, untuned",
            "AUC",
            "log loss",
            title=f"{task}: joint rate on validation prompts; unsteered {baseline}",
        )
        rows = sorted((o for o in results if o.task == task), key=lambda o: -o.untuned.joint)
        for o in rows:
            quality = ["-" if x is None else f"{x:.3f}" for x in (o.auc, o.log_loss)]
            table.add_row(
                o.candidate,
                str(o.tuned),
                str(o.layer),
                o.position,
                o.amount,
                str(o.untuned),
                *quality,
            )
        console.print(table)
    table = Table("candidate", "tuned", "untuned", "worst untuned", title="means over tasks")
    for name in dict.fromkeys(o.candidate for o in results):
        own = [o for o in results if o.candidate == name]
        untuned = [o.untuned.joint for o in own]
        table.add_row(
            name,
            f"{sum(o.tuned.joint for o in own) / len(own):.3f}",
            f"{sum(untuned) / len(own):.3f}",
            f"{min(untuned):.3f}",
        )
    console.print(table)


def main(
    tasks: Annotated[str, typer.Option(help="worlds or state")] = "worlds",
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    quick: Annotated[bool, typer.Option(help="Few prompts, to see that it runs.")] = False,
    only: Annotated[str, typer.Option(help="Setups whose name contains this.")] = "",
) -> None:
    """Compare barriers, metrics and stopping rules by what they do in generation."""
    if tasks not in ("worlds", "state"):
        raise typer.BadParameter(f"{tasks!r}; use worlds or state", param_hint="--tasks")
    console = Console(width=140)
    lm = SteeredModel.from_pretrained(str(model_path()), dtype=torch.float32)
    sizes = Sizes((3,), (1,), 10, 20) if quick else Sizes()
    chosen: list[Task] = (
        [WorldTask(w) for w in worlds()] if tasks == "worlds" else [RolesTask(), EveryTask()]
    )
    baselines = {task.name: unsteered(lm, task, sizes) for task in chosen}
    cells = [(task, c) for c in setups() if only in c.name for task in chosen]
    results = []
    for task, setup in track(cells, console=Console(stderr=True)):
        results.append(measure(lm, task, setup, sizes))
        last = results[-1]
        print(f"{setup.name}, {task.name}: {last.untuned}, {last.tuned}", file=sys.stderr)
    console.print(describe_machine())
    show(console, results, baselines)
    if output is not None:
        document: dict[str, Any] = {
            "machine": describe_machine(),
            "unsteered": {name: asdict(rate) for name, rate in baselines.items()},
            "outcomes": [asdict(result) for result in results],
        }
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
