"""The grid of a search: candidate methods, layers and amounts, coarse and refined."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, EndToEnd, HeadITI, Method

AMOUNTS: dict[str, tuple[float, ...]] = {
    "level": (0.5, 1.0, 1.5, 2.0, 3.0),
    "strength": (0.5, 1.0, 2.0, 4.0, 8.0),
    "interpolation": (0.5, 1.0, 1.5, 2.0, 3.0),
}
"""Amounts tried by default, as many of each quantity, and as far beyond the usual one: maps of
transport extrapolate above 1. T has none, since its scale depends on the layer."""

OWN_AMOUNTS: dict[type[Method], tuple[str, tuple[float, ...]]] = {
    HeadITI: ("T", (5.0, 10.0, 15.0, 20.0, 30.0)),
    EndToEnd: ("T", (0.5, 1.0, 2.0)),  # 1 is the cost that it was trained for
}
"""Methods with a quantity of their own: the T of `HeadITI` is in standard deviations."""

MOST_LAYERS = 8


@dataclass(frozen=True)
class Candidate:
    """A method with the amounts to try of it.

    Attributes:
        label: its name in tables.
        method: unfitted.
        quantity: of the amounts.
        values: the amounts, increasing.

    Raises `InvalidInputError` for amounts that the method does not have.
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
        """A candidate with the method's natural quantity and default amounts, unless given.

        The method's own default is one of the amounts if it is of that quantity.
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
class Setting:
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


def coarse_grid(candidates: Sequence[Candidate], layers: Sequence[int]) -> list[Setting]:
    """Every amount of every candidate at every layer."""
    return [
        Setting(number, layer, Amount(candidate.quantity, value))
        for number, candidate in enumerate(candidates)
        for layer in layers
        for value in candidate.values
    ]


def neighbours(around: Setting, tried: Sequence[Setting], within: Collection[int]) -> list[Setting]:
    """New settings beside ``around``, half way to the nearest tried ones of its candidate.

    First layers at the same amount, then amounts at the same layer. Beyond the largest amount the
    step is as wide as the one below it; a single layer has both its neighbours. ``within`` are the
    layers that may be tried.
    """
    candidate, quantity = around.candidate, around.amount.quantity
    own = [setting for setting in tried if setting.candidate == candidate]
    layers = sorted({setting.layer for setting in own})
    values = sorted({setting.value for setting in own if setting.layer == around.layer})
    settings = [Setting(candidate, i, around.amount) for i in _layers_beside(around, layers)]
    settings += [
        Setting(candidate, around.layer, Amount(quantity, value))
        for value in _amounts_beside(around.value, values)
    ]
    return [setting for setting in settings if setting not in own and setting.layer in within]


def _layers_beside(around: Setting, layers: Sequence[int]) -> list[int]:
    """Layers half way between that of ``around`` and the nearest of ``layers``."""
    if len(layers) == 1:
        return [around.layer - 1, around.layer + 1]
    at = layers.index(around.layer)
    found = []
    if at > 0:
        found.append((layers[at - 1] + around.layer) // 2)
    if at + 1 < len(layers):
        found.append((layers[at + 1] + around.layer + 1) // 2)
    return [layer for layer in found if layer not in layers]


def _amounts_beside(value: float, values: Sequence[float]) -> list[float]:
    """Amounts half way between ``value`` and the nearest of ``values``, to four digits."""
    at = values.index(value)
    below = values[at - 1] if at > 0 else 0.0
    above = values[at + 1] if at + 1 < len(values) else 2 * value - below
    last = at + 1 == len(values)
    found = [(below + value) / 2, above if last else (value + above) / 2]
    rounded = [float(f"{each:.4g}") for each in found]
    return [each for each in rounded if math.isfinite(each) and each not in (value, 0.0)]
