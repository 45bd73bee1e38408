"""Helpers: an objective given by a rule, a driver of a search, pairs for a tiny model."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from odesteer import ContrastData
from odesteer.artifact import Steerer
from odesteer.data import Example
from odesteer.methods import Amount
from odesteer.tuning import Measurement, MeasurementRequest, Objective, Search, SearchResults

Rule = Callable[[int, float, int], tuple[float | None, float | None]]
"""Value and cost of a layer, an amount and an item."""


class KnownObjective(Objective):
    """An objective given by a rule; records the calls."""

    title = "what the rule says"

    def __init__(self, rule: Rule, n_items: int = 32, name: str = "known") -> None:
        self.rule = rule
        self.n = n_items
        self.name = name
        self.calls: list[tuple[int | None, float | None, range]] = []

    @property
    def n_items(self) -> int:
        return self.n

    def about(self) -> dict[str, Any]:
        return {"objective": self.name, "value": self.title}

    def measure(
        self, steerer: Steerer | None, amount: Amount | None, items: range
    ) -> Sequence[Measurement]:
        if steerer is None or steerer.site is None or amount is None:
            self.calls.append((None, None, items))
            return [Measurement(0.0, 0.0) for _ in items]
        layer, value = steerer.site.layer, float(amount.value)
        self.calls.append((layer, value, items))
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


def run_search(
    search: Search, rule: Rule, requests: list[MeasurementRequest] | None = None
) -> SearchResults:
    """Results of a search measured by a rule; its requests are appended to ``requests``."""
    running = search.run([Measurement(0.0, 0.0) for _ in range(search.n_items)])
    try:
        request = next(running)
        while True:
            if requests is not None:
                requests.append(request)
            request = running.send(
                {
                    setting: [
                        Measurement(*rule(setting.layer, setting.value, i)) for i in request.items
                    ]
                    for setting in request.settings
                }
            )
    except StopIteration as end:
        found: SearchResults = end.value
    return found
