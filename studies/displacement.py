"""How far the least intervention and a flow move activations to the same level of one barrier.

    python -m studies.displacement MODEL --data FOLDER --layer 15 [--levels 0,1,2]

Barriers are fitted to film reviews at a layer; the activations moved are those of undesirable
reviews that no fit has seen. Printed are medians over those that both bring to the level: the
length of the straight displacement of each, the arc of the flow, their ratio, and the time of a
token.
"""

import random
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from scripts.llms import located

from odesteer import Amount, LeastIntervention, Method, ODESteer, SteeredModel
from odesteer.barriers import Centred, PolynomialBarrier
from odesteer.flows import Euler
from studies.real_data import review_data, review_pairs

BARRIERS = {
    "default": PolynomialBarrier(),
    "sharp quadratic": PolynomialBarrier(gamma=1.0, C=100.0, inputs=Centred()),
}


def main(
    model: Annotated[str, typer.Argument()],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layer: Annotated[int, typer.Option()],
    levels: Annotated[str, typer.Option()] = "0,1,2",
    pairs: Annotated[int, typer.Option(help="Reviews of each side to fit to.")] = 100,
) -> None:
    """Print the table."""
    lm = SteeredModel.from_pretrained(located(model), dtype=torch.float32)
    kept = [pair for pair in review_pairs(data) if max(map(len, pair)) <= 1000]
    random.Random(0).shuffle(kept)
    fit, test = review_data(kept[:pairs]), review_data(kept[pairs : pairs + pairs // 2])
    a = [lm.capture(side, layer).states[layer] for side in (fit.positive, fit.negative)]
    moved = lm.capture(test.negative, layer).states[layer]
    table = Table(
        "barrier", "level", "nearest", "flow, straight", "flow, arc", "ratio", "ms a token"
    )
    for name, barrier in BARRIERS.items():
        methods: list[Method] = [
            LeastIntervention(barrier),
            ODESteer(barrier, Euler(40)),
        ]
        methods = [method.fit(a[0], a[1], fit.groups) for method in methods]
        for level in map(float, levels.split(",")):
            amount = Amount("level", level)
            found, times = [], []
            for method in methods:
                method.solve(moved[:1], amount)
                start = time.process_time()
                found.append(method.solve(moved, amount))
                times.append(1000 * (time.process_time() - start) / len(moved))
            assert all(solution.reached is not None for solution in found)
            both = found[0].reached & found[1].reached & (found[1].time > 0)  # type: ignore[operator]
            straight = [(solution.state - moved).norm(dim=1)[both] for solution in found]
            arc = found[1].time[both]
            table.add_row(
                name,
                f"{level:g}, {int(both.sum())} of {len(moved)}",
                f"{float(straight[0].median()):.4f}",
                f"{float(straight[1].median()):.4f}",
                f"{float(arc.median()):.4f}",
                f"{float((straight[0] / arc).median()):.4f}",
                f"{times[0]:.2f} and {times[1]:.2f}",
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
