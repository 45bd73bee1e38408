"""What a steerer that is carried to another model or layer does there, against one fitted there.

    python -m studies.transfer SOURCE TARGET --data FOLDER --layers 15,9 [--kl .1] [--n 24]

SOURCE and TARGET are as in `studies.effect_at_cost`, and may be the same; ``--layers`` are the
layer of each. Steerers are fitted to the same film reviews on both. The map between the two is
fitted to the beginnings of other reviews. Gains are in the log-odds of praising against panning
words after the beginning of unseen reviews, all at the same KL to the unsteered target.
"""

import random
import statistics
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from scripts.llms import located

from odesteer import CAA, ODESteer, Site, SteeredModel, Steerer
from odesteer.errors import InvalidInputError
from odesteer.models import neutral_prompts, transfer
from studies.effect_at_cost import _cost, _steered, _unsteered, amount_of_cost, sentiment
from studies.real_data import review_data, review_pairs

# By strength, since even level 0 of a carried barrier may cost more than is asked for.
METHODS = {"ODESteer()": (ODESteer, 1.5), "CAA()": (CAA, 2.0)}
_LONGEST = 600  # characters of the reviews that are fitted to


def main(
    source: Annotated[str, typer.Argument()],
    target: Annotated[str, typer.Argument()],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layers: Annotated[str, typer.Option(help="Of the source and of the target.")],
    pairs: Annotated[int, typer.Option(help="Reviews of each side to fit to.")] = 50,
    texts: Annotated[int, typer.Option(help="Beginnings of reviews for the map.")] = 120,
    maps: Annotated[str, typer.Option(help="Kinds of maps, with commas between.")] = "ridge",
    n: Annotated[int, typer.Option(help="Held-out reviews.")] = 24,
    kl: Annotated[float, typer.Option()] = 0.1,
    neutral: Annotated[int, typer.Option(help="Neutral prompts.")] = 6,
) -> None:
    """Measure carried steerers and fitted ones at the same cost."""
    at = [int(layer) for layer in layers.split(",")]
    first = SteeredModel.from_pretrained(located(source), dtype=torch.float32)
    second = first
    if target != source:
        second = SteeredModel.from_pretrained(located(target), dtype=torch.float32)
    prompts = neutral_prompts("validation")[:neutral]
    effect = sentiment(second, data, n, 0)
    kept = [pair for pair in review_pairs(data) if max(map(len, pair)) <= 1000]
    random.Random(0).shuffle(kept)  # as `sentiment` does: 200 to fit to, then those to test on
    short = [pair for pair in kept[:200] if max(map(len, pair)) <= _LONGEST]
    examples = review_data(short[:pairs])
    others = [text[:200] for pair in kept[200 + n :] for text in pair][:texts]
    before = effect(_unsteered)
    columns = ("method", "steerer", "explained of h", "of a", "amount", "gain")
    table = Table(*columns, "less that of fitted there", "KL")
    print(f"unsteered {statistics.mean(before):.3f}; {len(others)} texts for the map", flush=True)
    sides = [
        [lm.capture(side, layer).states[layer] for side in (examples.positive, examples.negative)]
        for lm, layer in zip((first, second), at, strict=True)
    ]
    quantity = "strength"
    for name, (make, start) in METHODS.items():
        own, there = (
            Steerer(make().fit(*states, examples.groups), Site(layer, "last"))
            for states, layer in zip(sides, at, strict=True)
        )
        rows: list[tuple[str, Steerer, str, str]] = [("fitted there", there, "", "")]
        for kind in maps.split(","):
            try:
                found = transfer(
                    own,
                    first,
                    second,
                    others,
                    layer=at[1],
                    kind=kind,  # type: ignore[arg-type]
                    tokens_per_text=24,
                    least_explained=-100,
                )
            except InvalidInputError as error:
                print(f"{name}, {kind}: {error}", flush=True)
                continue
            shares = f"{found.explained_barrier:.2f}", f"{found.explained_activations:.2f}"
            rows.append((f"carried, {kind}", found.steerer, *shares))
        if source == target:
            rows.append(("as it is", Steerer(own.method, Site(at[1], "last")), "", ""))
        fitted: list[float] = []
        for label, steerer, *shares in rows:
            amount = amount_of_cost(second, steerer, quantity, start, kl, prompts)
            after = effect(_steered(second, steerer, quantity, amount))
            gains = [b - a for a, b in zip(before, after, strict=True)]
            fitted = fitted or gains
            behind = [g - f for g, f in zip(gains, fitted, strict=True)]
            cost = _cost(second, steerer, quantity, amount, prompts)
            row = (name, label, *shares, f"{quantity} {amount:.3g}", _shown(gains), _shown(behind))
            table.add_row(*row, f"{cost:.3f}")
            print(*row, f"{cost:.3f}", flush=True)
    Console(width=140).print(table)


def _shown(values: list[float]) -> str:
    """The mean and its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.3f} ± {error:.3f}"


if __name__ == "__main__":
    typer.run(main)
