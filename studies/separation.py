"""Which barriers see what activations of real language models show: held-out AUC by layer.

    python -m studies.separation MODEL --data FOLDER --layers 5,10,15
        [--tasks facts,truthfulqa,paradetox,persona,reviews] [--n 300] [--only TEXT] [--json FILE]

MODEL is a folder or an id; FOLDER holds the public data sets of `studies.real_data`. Barriers are
fitted on the last token of each example; no fold splits a group. Beside each stands logistic
regression (C = 1) on standardised activations on the same folds. A cell (task and layer) passes
where the barrier is within .01 of it, and has three quarters of its margin over one half.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from scripts.llms import located

from odesteer import SteeredModel
from odesteer.barriers import (
    Barrier,
    Centred,
    LinearBarrier,
    MeanDifferenceBarrier,
    PolynomialBarrier,
    Standardized,
    StandardizedSphere,
    UnitSphere,
    check_contrast,
)
from odesteer.barriers.linear_probe import probe_figures
from studies.real_data import TASKS

CANDIDATES: dict[str, Barrier] = {
    "mean difference": MeanDifferenceBarrier(),
    "default": PolynomialBarrier(),
    "sphere C=1": PolynomialBarrier(inputs=UnitSphere()),
    "sphere C=100": PolynomialBarrier(C=100.0, inputs=UnitSphere()),
    "linear, centred, C=1": LinearBarrier(),
    "centred C=10": PolynomialBarrier(C=10.0, inputs=Centred()),
    "standardised sphere C=100": PolynomialBarrier(C=100.0, inputs=StandardizedSphere(True)),
    "standardised, damped, C=10": PolynomialBarrier(C=10.0, inputs=Standardized(1.0)),
    "standardised, damped, C=100": PolynomialBarrier(C=100.0, inputs=Standardized(1.0)),
    "standardised C=100": PolynomialBarrier(C=100.0, inputs=Standardized()),
}


@dataclass(frozen=True)
class Cell:
    """One barrier at one task and layer."""

    task: str
    layer: int
    candidate: str
    auc: float
    probe: float

    @property
    def passes(self) -> bool:
        """Whether it is near the probe and has most of its margin over one half."""
        return self.auc >= self.probe - 0.01 and self.auc - 0.5 >= 0.75 * (self.probe - 0.5)


def measure(
    model: Annotated[str, typer.Argument(help="smollm2, gemma3, a folder or an id.")],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layers: Annotated[str, typer.Option(help="Zero-based, with commas between.")],
    tasks: Annotated[str, typer.Option()] = ",".join(TASKS),
    only: Annotated[str, typer.Option(help="Candidates whose name holds this.")] = "",
    n: Annotated[int, typer.Option(help="Examples a task.")] = 300,
    seed: Annotated[int, typer.Option()] = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure the held-out AUC of every candidate at every task and layer."""
    lm = SteeredModel.from_pretrained(located(model), dtype=torch.float32)
    at = [int(layer) for layer in layers.split(",")]
    cells = []
    for task in tasks.split(","):
        examples = TASKS[task](lm, data, n, seed)
        sides = [lm.capture(side, at, "last") for side in (examples.positive, examples.negative)]
        for layer in at:
            states = [side.states[layer] for side in sides]
            contrast = check_contrast(states[0], states[1], examples.groups)
            probe = probe_figures(contrast, None)["linear_probe_auc"]
            for name, barrier in CANDIDATES.items():
                if only in name:
                    fitted = barrier.clone().fit(states[0], states[1], examples.groups)
                    assert fitted.held_out_ is not None
                    cells.append(Cell(task, layer, name, fitted.held_out_["auc"], probe))
                    print(cells[-1], flush=True)
    Console().print(table(cells))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def table(cells: list[Cell]) -> Table:
    """Candidates by layer: mean AUC over tasks, the worst cell, and how many pass."""
    layers = sorted({cell.layer for cell in cells})
    shown = Table("candidate", *(f"layer {layer}" for layer in layers), "worst", "cells that pass")
    for name in dict.fromkeys(cell.candidate for cell in cells):
        own = [cell for cell in cells if cell.candidate == name]
        means = []
        for layer in layers:
            aucs = [cell.auc for cell in own if cell.layer == layer]
            means.append(f"{sum(aucs) / len(aucs):.3f}")
        worst = min(cell.auc - cell.probe for cell in own)
        passing = sum(cell.passes for cell in own)
        shown.add_row(name, *means, f"{worst:+.3f}", f"{passing} of {len(own)}")
    return shown


if __name__ == "__main__":
    typer.run(measure)
