"""Which barrier, metric and stopping rule steers best, on the bundled model with exact judges.

    python -m studies.barriers [--tasks worlds|state] [--json FILE] [--quick]

``worlds`` are the three of the terrarium; ``state`` are two tasks in which one steerer has to move
different states in different directions. For each candidate and task, the layer and the position
of capture and then the amount are chosen on validation prompts; the joint attribute-and-validity
rate is then measured on test prompts over several seeds (of the data that the steerer is fitted
to, of the prompts, of the sampling). Beside it stands the untuned rate, at the task's own layer
and position and the candidate's first amount.
"""

import json
import sys
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
from odesteer.barriers import Centred, LinearBarrier, NeuralBarrier, PolynomialBarrier
from odesteer.flows import Covariance, Euler, Geodesic
from odesteer.methods import Spherical
from odesteer.models.captured_tokens import CapturePosition
from odesteer.terrarium import model_path, worlds
from studies.joint import Rates, complete
from studies.tasks import Activations, EveryTask, RolesTask, Task, WorldTask

POSITIONS: tuple[CapturePosition, ...] = ("random_answer", "last")
LEVELS = tuple(Amount("level", level) for level in (1.5, 1.0, 2.0))
STRENGTHS = tuple(Amount("strength", s) for s in (0.4, 0.2, 0.3, 0.55, 0.75))


@dataclass(frozen=True)
class Candidate:
    """A method and the amounts to choose from, the untuned one first."""

    name: str
    method: Method
    amounts: tuple[Amount, ...]


def candidates() -> tuple[Candidate, ...]:
    """Everything compared."""
    smooth, sharp = PolynomialBarrier(), PolynomialBarrier(C=100.0)
    centred = PolynomialBarrier(gamma=1.0, C=10.0, inputs=Centred())
    grid = tuple(10.0**k for k in range(-1, 5))
    chosen = PolynomialBarrier(C=grid)
    one_step, many = Euler(1), Euler(30)
    levels, strengths = LEVELS, STRENGTHS
    return (
        Candidate("mean difference, fixed strength", CAA(), strengths),
        Candidate("mean difference, clamped at a level", CAA(), levels),
        Candidate("paper (sketch), fixed strength", ODESteer.paper(), strengths),
        Candidate("paper kernel, exact, fixed strength", ODESteer(smooth), strengths),
        Candidate("paper kernel, exact, one step", ODESteer(smooth, one_step), strengths),
        Candidate("paper kernel, one step, level", ODESteer(smooth, one_step), levels),
        Candidate("paper kernel, 10 Euler steps, level", ODESteer(smooth), levels),
        Candidate("paper kernel, 30 Euler steps, level", ODESteer(smooth, many), levels),
        Candidate("paper kernel, 10 geodesic steps, level", ODESteer(smooth, Geodesic()), levels),
        Candidate("C = 100, level", ODESteer(sharp), levels),
        Candidate("C by cross-validation, level", ODESteer(chosen), levels),
        Candidate("centred, C = 10, level", ODESteer(centred), levels),
        Candidate(
            "centred, covariance metric, level", ODESteer(centred, metric=Covariance()), levels
        ),
        Candidate("degree 3, level", ODESteer(PolynomialBarrier(degree=3)), levels),
        Candidate("linear, logistic, level", ODESteer(LinearBarrier()), levels),
        Candidate(
            "linear on the sphere, logistic, level", ODESteer(PolynomialBarrier(degree=1)), levels
        ),
        Candidate("spherical (mean difference), level", Spherical(), levels),
        Candidate("neural, level", ODESteer(NeuralBarrier()), levels),
    )


@dataclass(frozen=True)
class Outcome:
    """One candidate at one task."""

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


def measure(lm: SteeredModel, task: Task, candidate: Candidate, sizes: Sizes) -> Outcome:
    """Choose on validation prompts, measure on test prompts."""
    prompts = task.prompts("validation", seed=0, n=sizes.n_validation)
    first = candidate.amounts[0]

    def score(steerer: Steerer, amount: Amount) -> float:
        return Rates.of([complete(lm, task, prompts, steerer, amount, seed=0)]).joint

    fitted = {
        (layer, position): steerer
        for position in dict.fromkeys((task.position, *POSITIONS))
        for layer, steerer in fit(lm, task, candidate.method, sizes.layers, position, 0).items()
    }
    scores = {(*where, first): score(steerer, first) for where, steerer in fitted.items()}
    layer, position, _ = max(scores, key=lambda cell: scores[cell])
    for amount in candidate.amounts[1:]:
        scores[layer, position, amount] = score(fitted[layer, position], amount)
    layer, position, amount = max(scores, key=lambda cell: scores[cell])
    tuned, untuned, quality = [], [], []
    for seed in sizes.seeds:
        test = task.prompts("test", seed=seed, n=sizes.n_test)
        (chosen,) = fit(lm, task, candidate.method, (layer,), position, seed).values()
        (own,) = fit(lm, task, candidate.method, (task.layer,), task.position, seed).values()
        tuned.append(complete(lm, task, test, chosen, amount, seed))
        untuned.append(complete(lm, task, test, own, first, seed))
        quality.append(own.barrier.held_out_ or {})
    return Outcome(
        candidate.name,
        task.name,
        layer,
        position or "each world's own",
        str(amount),
        scores[layer, position, amount],
        Rates.of(tuned),
        Rates.of(untuned),
        _mean([q.get("auc") for q in quality]),
        _mean([q.get("log_loss") for q in quality]),
    )


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
            complete(lm, task, task.prompts("test", seed=seed, n=sizes.n_test), None, None, seed)
            for seed in sizes.seeds
        ]
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def show(console: Console, outcomes: list[Outcome], baselines: dict[str, Rates]) -> None:
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
            title=f"{task}: joint rate on test prompts; unsteered {baseline}",
        )
        rows = sorted((o for o in outcomes if o.task == task), key=lambda o: -o.untuned.joint)
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
    for name in dict.fromkeys(o.candidate for o in outcomes):
        own = [o for o in outcomes if o.candidate == name]
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
    only: Annotated[str, typer.Option(help="Candidates whose name contains this.")] = "",
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
    cells = [(task, c) for c in candidates() if only in c.name for task in chosen]
    outcomes = []
    for task, candidate in track(cells, console=Console(stderr=True)):
        outcomes.append(measure(lm, task, candidate, sizes))
        last = outcomes[-1]
        print(f"{candidate.name}, {task.name}: {last.untuned}, {last.tuned}", file=sys.stderr)
    console.print(describe_machine())
    show(console, outcomes, baselines)
    if output is not None:
        document: dict[str, Any] = {
            "machine": describe_machine(),
            "unsteered": {name: asdict(rate) for name, rate in baselines.items()},
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
