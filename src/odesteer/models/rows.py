"""Who moves which row of a batch, and how far."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from odesteer.artifact import Steerer
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

Quantity = float | Sequence[float | None] | Tensor | None
"""One number for all rows, or one for each row (None: leave that row alone)."""

Steerers = Steerer | Sequence[Steerer | None]
"""One steerer for all rows, or one for each row (None: leave that row alone)."""


@dataclass(frozen=True)
class Share:
    """The rows that one steerer moves.

    Attributes:
        steerer: who moves them.
        quantity: what the values measure.
        values: one for each of the rows, or a single one for all of them.
        rows: their indices, increasing; None for all rows of a batch of any size.
        n_rows: number of rows that the indices refer to; None with ``rows``.
    """

    steerer: Steerer
    quantity: str
    values: tuple[float, ...]
    rows: tuple[int, ...] | None = None
    n_rows: int | None = None

    def check_meaning(self) -> None:
        """Raise `InvalidInputError` for a level that the barrier gives no meaning to."""
        barrier = getattr(self.steerer.method, "barrier", None)
        if self.quantity == "level" and barrier is not None:
            for level in (min(self.values), max(self.values)):
                barrier.threshold(level)


def share_rows(steerers: Sequence[Steerers], amounts: "Amounts") -> list[Share]:
    """The shares of ``steerers``, each of which acts on the rows independently of the others.

    Rows with one steerer are moved together. Raises `InvalidInputError` where lists for rows
    differ in length, or a method does not have the quantity.
    """
    return [share for item in steerers for share in _shares(item, amounts)]


@dataclass(frozen=True)
class Amounts:
    """How far, for all rows (one `Amount`, or None for each method's default) or row by row."""

    value: Amount | tuple[Amount | None, ...] | None

    @classmethod
    def of(
        cls,
        *,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
    ) -> "Amounts":
        """The one quantity that is given. Raises `InvalidInputError` for two, and for NaN."""
        quantities = {"level": level, "T": T, "strength": strength, "interpolation": interpolation}
        given = {name: value for name, value in quantities.items() if value is not None}
        if len(given) > 1:
            raise InvalidInputError(
                "give exactly one of level, T, strength and interpolation, not"
                f" {' and '.join(f'{name}={value}' for name, value in given.items())}."
            )
        for name, value in given.items():
            if isinstance(value, Tensor):
                value = value.tolist()
            if isinstance(value, Sequence) and not isinstance(value, str):
                return cls(tuple(None if x is None else Amount(name, x) for x in value))
            return cls(Amount(name, value))
        return cls(None)

    @property
    def n_rows(self) -> int | None:
        return len(self.value) if isinstance(self.value, tuple) else None

    def of_rows(self, part: slice) -> "Amounts":
        """The amounts of some of the rows."""
        return Amounts(self.value[part]) if isinstance(self.value, tuple) else self

    @property
    def is_given(self) -> bool:
        return self.value is not None


def _shares(steerers: Steerers, amounts: Amounts) -> list[Share]:
    if isinstance(steerers, Steerer) and not isinstance(amounts.value, tuple):
        common = _checked(steerers, amounts.value)
        return [Share(steerers, common.quantity, (_number(common),))]
    n_rows = len(steerers) if not isinstance(steerers, Steerer) else amounts.n_rows or 0
    if amounts.n_rows is not None and amounts.n_rows != n_rows:
        raise InvalidInputError(
            f"there are {n_rows} steerers and {amounts.n_rows} amounts; give one of each for every"
            " row, or one for all."
        )
    rows: dict[tuple[int, str], tuple[Steerer, list[int], list[float]]] = {}
    for row in range(n_rows):
        steerer = steerers if isinstance(steerers, Steerer) else steerers[row]
        if steerer is not None and not isinstance(steerer, Steerer):
            raise InvalidInputError(
                f"row {row} has {steerer!r:.80} for a steerer; it must be a Steerer or None."
            )
        amount = amounts.value[row] if isinstance(amounts.value, tuple) else amounts.value
        if steerer is None or (amount is None and amounts.n_rows is not None):
            continue
        own = _checked(steerer, amount)
        _, indices, values = rows.setdefault((id(steerer), own.quantity), (steerer, [], []))
        indices.append(row)
        values.append(_number(own))
    return [
        Share(
            steerer,
            quantity,
            tuple(values[:1] if len(set(values)) == 1 else values),
            tuple(indices),
            n_rows,
        )
        for (_, quantity), (steerer, indices, values) in rows.items()
    ]


def _checked(steerer: Steerer, amount: Amount | None) -> Amount:
    amount = steerer.method.default_amount if amount is None else amount
    steerer.method.check_amount(amount)
    return amount


def _number(amount: Amount) -> float:
    return float(amount.value)
