"""Compositions of steerers, for tasks in which different states must move differently.

    python -m studies.compositions [--only TEXT] [--json FILE] [--quick]

The tasks are those of ``python -m studies.barriers --tasks state``; there one steerer is fitted
to the examples of the whole task. Here steerers of single attributes are put together instead:

gates      each acts only on rows whose prompt meets a condition, a barrier fitted to prompts
sum        the sum of their displacements
product    one flow up the sum of their log-density ratios
labels     one flow up one `MultiLabelBarrier`, a single fit over all examples with their labels

Nothing is tuned: every part is at its default level (rude: level -2), all at one layer. The
minimum of the three has no level here: no example shows all three attributes to count in.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from benchmarks.machine import describe_machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from odesteer import ContrastData, Method, ODESteer, Site, SteeredModel, Steerer
from odesteer.barriers import FrozenBarrier, LinearBarrier, MultiLabelBarrier, ProductBarrier
from odesteer.data import Example
from odesteer.methods import Spherical, Sum
from odesteer.terrarium import model_path, world, worlds
from studies.joint import Judged, Rates, complete
from studies.tasks import N_PAIRS, EveryTask, RolesTask, Task, capture

LAYER = 4
Build = Callable[[SteeredModel, int], Sequence[Steerer]]


def condition(
    lm: SteeredModel, meets: Sequence[Example], others: Sequence[Example], seed: int
) -> Steerer:
    """A condition on prompts: a barrier at the last token of the prompt.

    Fitted to prompts like those at test time, without earlier turns: the position of a text in a
    dialogue shows in its activations more than the speaker.
    """
    data = ContrastData(
        tuple(meets),
        tuple(others),
        tuple(f"a{i}" for i in range(len(meets))),
        tuple(f"b{i}" for i in range(len(others))),
    )
    return lm.fit(ODESteer(LinearBarrier(C=100.0)), data, LAYER, position="prompt", seed=seed)


def gated_roles(method: Callable[..., Method], lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """One fit of civility, upwards for some askers and downwards for the others."""
    task = RolesTask()
    civility = world("civility")
    data = civility.contrast("fit", seed=seed, n=N_PAIRS)
    up, down = (
        lm.fit(method(level=level), data, LAYER, position=civility.position, seed=seed)
        for level in (1.5, -2.0)
    )
    prompts = civility.prompts("fit", seed=seed, n=2 * N_PAIRS)
    polite, rude = (
        [Example(prompt=p, response=" .") for p in prompts if task.asker(p) in askers]
        for askers in (task.polite_to, task.rude_to)
    )
    asker = condition(lm, polite, rude, seed)
    return up.when(asker, above=0.0), down.when(asker, below=0.0)


def single(method: Method, lm: SteeredModel, seed: int) -> dict[str, Steerer]:
    """A steerer for each world, fitted on that world alone."""
    return {
        w.name: lm.fit(
            method,
            w.contrast("fit", seed=seed, n=N_PAIRS // 3),
            LAYER,
            position=w.position,
            seed=seed,
        )
        for w in worlds()
    }


def gated_worlds(method: Callable[..., Method], lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """Each world's steerer where the prompt is of that world."""
    examples = {
        w.name: [
            Example(prompt=p, response=" .") for p in w.prompts("fit", seed=seed, n=N_PAIRS // 3)
        ]
        for w in worlds()
    }
    return [
        steerer.when(
            condition(
                lm, examples[name], [e for o, es in examples.items() if o != name for e in es], seed
            ),
            above=0.0,
        )
        for name, steerer in single(method(), lm, seed).items()
    ]


def summed(method: Callable[..., Method], lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """The sum of the three displacements."""
    parts = single(method(), lm, seed).values()
    return [Steerer(Sum.of(*(part.method for part in parts)), Site(LAYER))]


def product(lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """One flow up the sum of the three barriers."""
    barriers = [steerer.barrier for steerer in single(ODESteer(), lm, seed).values()]
    states = EveryTask().activations(lm, (LAYER,), None, seed)[LAYER]
    barrier = ProductBarrier.of(*barriers, positive=states.positive, negative=states.negative)
    return [Steerer(ODESteer(barrier).fit(states.positive, states.negative), Site(LAYER))]


def labelled_roles(lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """One fit in which replies are also labelled by their tone and by who asks."""
    task = RolesTask()
    found = task.activations(lm, (LAYER,), None, seed)[LAYER]
    data = task.contrast(seed)
    tones = {"desired": ("polite", "rude"), "undesired": ("rude", "polite")}
    states, labels = [], []
    for side, rows, examples, owners, sources in (
        ("desired", found.positive, data.positive, 0, data.groups_positive),
        ("undesired", found.negative, data.negative, 1, data.groups_negative),
    ):
        assert found.groups is not None
        askers = {
            group: task.asker(str(example.prompt)) in task.polite_to
            for group, example in zip(sources, examples, strict=True)
        }
        for row, group in zip(rows, found.groups[owners], strict=True):
            to_guests = askers[group]
            states.append(row)
            tone = tones[side][0 if to_guests else 1]
            labels.append((side, tone, "guests" if to_guests else "colleagues"))
    assert found.groups is not None
    barrier = MultiLabelBarrier(("desired",), ("undesired",))
    barrier.fit_labels(torch.stack(states), labels, [*found.groups[0], *found.groups[1]])
    method = ODESteer(FrozenBarrier(barrier)).fit(found.positive, found.negative)
    return [Steerer(method, Site(LAYER))]


def labelled_worlds(lm: SteeredModel, seed: int) -> Sequence[Steerer]:
    """One fit in which each world's two sides have labels of their own: three targets."""
    states: list[torch.Tensor] = []
    labels: list[str] = []
    for w in worlds():
        data = w.contrast("fit", seed=seed, n=N_PAIRS // 3)
        part = capture(lm, data, (LAYER,), w.position, seed)[LAYER]
        states += [part.positive, part.negative]
        labels += [w.name] * len(part.positive) + [f"not {w.name}"] * len(part.negative)
    names = [w.name for w in worlds()]
    barrier = MultiLabelBarrier(tuple(names), tuple(f"not {name}" for name in names))
    barrier.fit_labels(torch.cat(states), labels)
    method = ODESteer(FrozenBarrier(barrier)).fit(torch.cat(states[::2]), torch.cat(states[1::2]))
    return [Steerer(method, Site(LAYER))]


def compositions() -> dict[str, dict[str, Build]]:
    """By task and name."""
    return {
        "roles": {
            "gates, ODESteer": lambda lm, seed: gated_roles(ODESteer, lm, seed),
            "gates, spherical": lambda lm, seed: gated_roles(Spherical, lm, seed),
            "labels": labelled_roles,
        },
        "all three": {
            "gates, ODESteer": lambda lm, seed: gated_worlds(ODESteer, lm, seed),
            "gates, spherical": lambda lm, seed: gated_worlds(Spherical, lm, seed),
            "sum, ODESteer": lambda lm, seed: summed(ODESteer, lm, seed),
            "sum, spherical": lambda lm, seed: summed(Spherical, lm, seed),
            "product of barriers": product,
            "labels": labelled_worlds,
        },
    }


def measure(
    lm: SteeredModel, task: Task, build: Build | None, seeds: Sequence[int], n: int
) -> Rates:
    """The joint rate on validation prompts."""
    judged: list[Judged] = []
    for seed in seeds:
        prompts = task.prompts("validation", seed=seed, n=n)
        with lm.steering(*(build(lm, seed) if build else ())):
            judged += complete(lm, task, prompts, None, None, seed)
    return Rates.of(judged)


def main(
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    quick: Annotated[bool, typer.Option(help="Few prompts, to see that it runs.")] = False,
    only: Annotated[str, typer.Option(help="Compositions whose names contain this.")] = "",
) -> None:
    """Compare compositions of steerers."""
    console = Console(width=120)
    lm = SteeredModel.from_pretrained(str(model_path()), dtype=torch.float32)
    seeds, n = ((1,), 20) if quick else ((1, 2, 3), 100)
    tasks: dict[str, Task] = {task.name: task for task in (RolesTask(), EveryTask())}
    cells: list[tuple[str, str, Build | None]] = []
    for task, builds in compositions().items():
        cells += [
            (task, "unsteered", None),
            *((task, name, b) for name, b in builds.items() if only in name),
        ]
    figures = {
        (task, name): measure(lm, tasks[task], build, seeds, n)
        for task, name, build in track(cells, console=Console(stderr=True))
    }
    console.print(describe_machine())
    table = Table("task", "composition", "joint rate on validation prompts")
    for (task, name), rates in figures.items():
        table.add_row(task, name, str(rates))
    console.print(table)
    if output is not None:
        rows = [{"task": t, "name": name, **asdict(r)} for (t, name), r in figures.items()]
        output.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    typer.run(main)
