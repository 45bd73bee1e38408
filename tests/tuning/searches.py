"""Objectives with known answers, and data that a tiny model is fitted on."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from odesteer import ContrastData
from odesteer.artifact import Steerer
from odesteer.data import Example
from odesteer.methods import Amount
from odesteer.tuning import Ask, Measurement, Objective, Search, Surface

Rule = Callable[[int, float, int], tuple[float | None, float | None]]
"""Value and cost of a layer, an amount and an item."""


class Known(Objective):
    """Measures what a rule says; counts what it was asked."""

    title = "what the rule says"

    def __init__(self, rule: Rule, n_items: int = 32, name: str = "known") -> None:
        self.rule = rule
        self.n = n_items
        self.name = name
        self.asked: list[tuple[int | None, float | None, range]] = []

    @property
    def n_items(self) -> int:
        return self.n

    def about(self) -> dict[str, Any]:
        return {"objective": self.name, "value": self.title}

    def measure(
        self, steerer: Steerer | None, amount: Amount | None, items: range
    ) -> Sequence[Measurement]:
        if steerer is None or steerer.site is None or amount is None:
            self.asked.append((None, None, items))
            return [Measurement(0.0, 0.0) for _ in items]
        layer, value = steerer.site.layer, float(amount.value)
        self.asked.append((layer, value, items))
        return [Measurement(*self.rule(layer, value, i)) for i in items]


def noise(layer: int, value: float, item: int, scale: float = 0.05) -> float:
    """The same number for the same setting and item."""
    return random.Random(f"{layer} {value} {item}").gauss(0, scale)


def pairs(n: int = 24, *, prompts: bool = True) -> ContrastData:
    """Pairs of random words of two kinds."""
    rng = random.Random(0)
    kinds = (["sunny", "gay", "warm", "bright"], ["dull", "cold", "grey", "wet"])
    sides: list[list[Example]] = [[], []]
    for i in range(n):
        for side, words in zip(sides, kinds, strict=True):
            side.append(
                Example(f"Day {i}:" if prompts else "", " " + " ".join(rng.choices(words, k=5)))
            )
    groups = tuple(f"day {i}" for i in range(n))
    return ContrastData(tuple(sides[0]), tuple(sides[1]), groups, groups)


def driven(search: Search, rule: Rule, asked: list[Ask] | None = None) -> Surface:
    """What a search comes to, told what a rule says; ``asked`` gets what it asked."""
    running = search.run([Measurement(0.0, 0.0) for _ in range(search.n_items)])
    try:
        ask = next(running)
        while True:
            if asked is not None:
                asked.append(ask)
            ask = running.send(
                {
                    cell: [Measurement(*rule(cell.layer, cell.value, i)) for i in ask.items]
                    for cell in ask.cells
                }
            )
    except StopIteration as end:
        found: Surface = end.value
    return found
