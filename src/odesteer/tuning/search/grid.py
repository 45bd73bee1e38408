"""What is tried: methods, layers and amounts, coarse and then finer."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, HeadITI, Method

AMOUNTS: dict[str, tuple[float, ...]] = {
    "level": (0.5, 1.0, 1.5, 2.0, 3.0),
    "strength": (0.05, 0.1, 0.2, 0.4, 0.8),
    "interpolation": (0.25, 0.5, 0.75, 1.0),
}
"""Tried by default. T has none: what is much depends on the layer, in which strength counts."""

OWN_AMOUNTS: dict[type[Method], tuple[str, tuple[float, ...]]] = {
    HeadITI: ("T", (5.0, 10.0, 15.0, 20.0, 30.0)),
}
"""Methods that count in a unit of their own: the T of `HeadITI` is in standard deviations."""

MOST_LAYERS = 8


@dataclass(frozen=True)
class Candidate:
    """A method with the amounts to try of it.

    Attributes:
        label: what it is called in tables.
        method: unfitted.
        quantity: the way of saying how much.
        values: increasing.

    Raises `InvalidInputError` for amounts that the method cannot be asked for.
    """

    label: str
    method: Method
    quantity: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise InvalidInputError(f"method is {self.method!r:.80}; give a method.")
        if not self.values:
            raise InvalidInputError(f"there is no amount to try for {self.label}.")
        for value in self.values:
            self.method.check_amount(Amount(self.quantity, value))
        object.__setattr__(self, "values", tuple(sorted(set(map(float, self.values)))))

    @classmethod
    def of(
        cls,
        method: Method,
        label: str | None = None,
        quantity: str | None = None,
        values: Sequence[float] | None = None,
    ) -> "Candidate":
        """With the method's natural quantity and the usual amounts of it, unless they are given.

        The default of the method is one of the usual amounts, if it is of that quantity.
        """
        natural, usual = OWN_AMOUNTS.get(type(method), (method.quantities[0], None))
        quantity = natural if quantity is None else quantity
        if values is None:
            values = usual if usual and quantity == natural else AMOUNTS.get(quantity)
            default = method.default_amount
            if values and default.quantity == quantity:
                values = (*values, float(default.value))
        if values is None:
            raise InvalidInputError(
                f"there is no usual range of {quantity}; say which amounts to try, or use"
                f" {' or '.join(AMOUNTS)}."
            )
        name = repr(method) if label is None else label
        return cls(name, method, quantity, tuple(values))


@dataclass(frozen=True)
class Cell:
    """One setting: a candidate (its number), a layer and an amount."""

    candidate: int
    layer: int
    amount: Amount

    @property
    def value(self) -> float:
        """The amount as a number."""
        return float(self.amount.value)

    def __str__(self) -> str:
        return f"{self.amount}, layer {self.layer}"


def coarse_layers(n_layers: int, most: int = MOST_LAYERS) -> tuple[int, ...]:
    """All layers of a small model; of a deep one at most ``most``, from 15 % to 85 % of it."""
    if n_layers <= most:
        return tuple(range(n_layers))
    first, last = 0.15 * (n_layers - 1), 0.85 * (n_layers - 1)
    return tuple(sorted({round(first + i * (last - first) / (most - 1)) for i in range(most)}))


def coarse(candidates: Sequence[Candidate], layers: Sequence[int]) -> list[Cell]:
    """Every amount of every candidate at every layer."""
    return [
        Cell(number, layer, Amount(candidate.quantity, value))
        for number, candidate in enumerate(candidates)
        for layer in layers
        for value in candidate.values
    ]


def finer(around: Cell, tried: Sequence[Cell], within: Collection[int]) -> list[Cell]:
    """Cells beside one, half way to the nearest that were tried with the same candidate.

    Layers at its amount, then amounts at its layer; past the end of the amounts one step as wide
    again, and on either side of the only layer. A transport map has no more than the whole.
    ``within`` are the layers that there are to try.
    """
    own = [cell for cell in tried if cell.candidate == around.candidate]
    layers = sorted({cell.layer for cell in own})
    values = sorted({cell.value for cell in own if cell.layer == around.layer})
    quantity = around.amount.quantity
    cells = [Cell(around.candidate, layer, around.amount) for layer in _between(around, layers)]
    cells += [
        Cell(around.candidate, around.layer, Amount(quantity, value))
        for value in _beside(around.value, values, quantity)
    ]
    return [cell for cell in cells if cell not in own and cell.layer in within]


def _between(around: Cell, layers: Sequence[int]) -> list[int]:
    if len(layers) == 1:
        return [around.layer - 1, around.layer + 1]
    at = layers.index(around.layer)
    found = []
    if at > 0:
        found.append((layers[at - 1] + around.layer) // 2)
    if at + 1 < len(layers):
        found.append((layers[at + 1] + around.layer + 1) // 2)
    return [layer for layer in found if layer not in layers]


def _beside(value: float, values: Sequence[float], quantity: str) -> list[float]:
    at = values.index(value)
    below = values[at - 1] if at > 0 else 0.0
    above = values[at + 1] if at + 1 < len(values) else 2 * value - below
    last = at + 1 == len(values)
    found = [(below + value) / 2, above if last else (value + above) / 2]
    if quantity == "interpolation":
        found = [min(each, 1.0) for each in found]
    # Four digits are more than anybody can tell apart, and read well.
    rounded = [float(f"{each:.4g}") for each in found]
    return [each for each in rounded if math.isfinite(each) and each not in (value, 0.0)]
