"""How well a barrier that is carried to another model or layer tells its classes apart there.

    python -m studies.carried_barriers SOURCE TARGET --data FOLDER --layers 15,9 [--n 300]

SOURCE and TARGET are as in `studies.separation`, and may be the same; ``--layers`` are the layer of
each. At both, a barrier is fitted to half of the groups of a task, at the last token of each
example. The map from the target's activations to the source's, by ridge regression, is fitted to
the examples of all other tasks, as if nothing were known of this one, and beside that to those with
the fitted half. Printed for the other half: the share of the variance of h that h of mapped
activations explains, and AUCs: of the source's barrier at home, of h∘map, of a barrier that was
fitted there, and with one width for both of the source's barrier without a map.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from scripts.llms import located
from torch import Tensor

from odesteer import SteeredModel
from odesteer.barriers import Barrier, PolynomialBarrier
from odesteer.models import ActivationMap
from studies.real_data import TASKS

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Examples:
    """Activations of one task at one layer `[n, d]`, whether they are desired, and their groups."""

    states: Tensor
    wanted: Tensor
    groups: list[str]

    def part(self, mask: Tensor) -> tuple[Tensor, Tensor, tuple[list[str], list[str]]]:
        """What a barrier is fitted to."""
        sides = [mask & self.wanted, mask & ~self.wanted]
        owners = [[self.groups[i] for i in side.nonzero()[:, 0].tolist()] for side in sides]
        return self.states[sides[0]], self.states[sides[1]], (owners[0], owners[1])


@dataclass(frozen=True)
class Row:
    """The figures of one task."""

    task: str
    home: float
    fitted_there: float
    as_it_is: float | None
    explained: tuple[float, float]
    carried: tuple[float, float]


def compare(source: dict[str, Examples], target: dict[str, Examples], task: str) -> Row:
    """Carry the barrier of a task; the two of a pair are with other tasks alone, and with all."""
    own, there = source[task], target[task]
    names = sorted(set(own.groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    first = {names[i] for i in order[: len(names) // 2]}
    fit = torch.tensor([group in first for group in own.groups])
    barriers = [PolynomialBarrier().fit(*examples.part(fit)) for examples in (own, there)]
    others = [[pages[name].states for name in source if name != task] for pages in (target, source)]
    pairs = [
        tuple(torch.cat(side).double() for side in others),
        tuple(
            torch.cat([*side, examples.states[fit]]).double()
            for side, examples in zip(others, (there, own), strict=True)
        ),
    ]
    h = barriers[0].value(own.states[~fit].double())
    wanted = own.wanted[~fit]
    explained, carried = [], []
    for a, x in pairs:
        move = best_map(a, x, barriers[0])
        mapped = barriers[0].value(move(there.states[~fit].double()))
        explained.append(_explained(h, mapped))
        carried.append(_auc(mapped, wanted))
    fitted_there = _auc(barriers[1].value(there.states[~fit].double()), wanted)
    alike = own.states.shape[1] == there.states.shape[1]
    as_it_is = _auc(barriers[0].value(there.states[~fit].double()), wanted) if alike else None
    return Row(
        task,
        _auc(h, wanted),
        fitted_there,
        as_it_is,
        (explained[0], explained[1]),
        (carried[0], carried[1]),
    )


def best_map(a: Tensor, x: Tensor, barrier: Barrier) -> ActivationMap:
    """The ridge that explains most of h on every fifth pair, fitted to the rest."""
    held_out = torch.arange(len(a)) % 5 == 4
    truth = barrier.value(x[held_out])
    maps = [ActivationMap.fitted(a[~held_out], x[~held_out], "ridge", r) for r in _RIDGES]
    return max(maps, key=lambda one: _explained(truth, barrier.value(one(a[held_out]))))


def _explained(truth: Tensor, estimate: Tensor) -> float:
    error = (truth - estimate).square().sum()
    return 1 - float(error / (truth - truth.mean()).square().sum())


def _auc(h: Tensor, wanted: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wanted.numpy(), h.numpy()))


def captured(
    lm: SteeredModel, data: Path, tasks: list[str], layers: list[int], n: int
) -> list[dict[str, Examples]]:
    """For each layer the examples of each task."""
    found: list[dict[str, Examples]] = [{} for _ in layers]
    for task in tasks:
        examples = TASKS[task](lm, data, n, 0)
        sides = [
            lm.capture(side, layers, "last").states
            for side in (examples.positive, examples.negative)
        ]
        groups = [*examples.groups_positive, *examples.groups_negative]
        for own, layer in zip(found, layers, strict=True):
            states = [side[layer] for side in sides]
            wanted = torch.arange(len(groups)) < len(states[0])
            own[task] = Examples(torch.cat(states), wanted, groups)
    return found


def table(rows: list[Row]) -> Table:
    """One task a row."""
    shown = Table(
        *("task", "explained of h", "with own task", "AUC at home", "carried", "with own task"),
        *("fitted there", "as it is"),
    )
    for row in rows:
        shown.add_row(
            row.task,
            *(f"{value:.2f}" for value in row.explained),
            f"{row.home:.3f}",
            *(f"{value:.3f}" for value in row.carried),
            f"{row.fitted_there:.3f}",
            "" if row.as_it_is is None else f"{row.as_it_is:.3f}",
        )
    return shown


def main(
    source: Annotated[str, typer.Argument()],
    target: Annotated[str, typer.Argument()],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layers: Annotated[str, typer.Option(help="Of the source and of the target.")],
    tasks: Annotated[str, typer.Option()] = ",".join(TASKS),
    n: Annotated[int, typer.Option(help="Examples a task.")] = 300,
) -> None:
    """Carry the barrier of every task."""
    names, at = tasks.split(","), [int(layer) for layer in layers.split(",")]
    pages = []
    for model in dict.fromkeys((source, target)):
        lm = SteeredModel.from_pretrained(located(model), dtype=torch.float32)
        own = [layer for layer, of in zip(at, (source, target), strict=True) if of == model]
        pages += captured(lm, data, names, own, n)
    Console(width=140).print(table([compare(pages[0], pages[1], task) for task in names]))


if __name__ == "__main__":
    typer.run(main)
