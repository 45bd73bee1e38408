"""Row assignments: which steerer acts on which rows of a batch, and the amounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from odesteer.artifact import Gate, Site, Steerer, SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

Quantity = float | Sequence[float | None] | Tensor | None
"""One number for all rows, or one for each row (None: leave that row alone)."""

AnySteerer = Steerer | SteererSet

Steerers = AnySteerer | Sequence[AnySteerer | None]
"""One steerer (or set of steerers) for all rows, or one for each row (None: leave it alone)."""


@dataclass(frozen=True)
class RowAssignment:
    """A steerer and the rows of a batch that it acts on.

    Attributes:
        steerer: the steerer.
        quantity: the quantity that the values are amounts of.
        values: one for each of the rows, or a single one for all of them.
        rows: their indices, increasing; None for all rows of a batch of any size.
        n_rows: number of rows that the indices refer to; None with ``rows``.
    """

    steerer: Steerer
    quantity: str
    values: tuple[float, ...]
    rows: tuple[int, ...] | None = None
    n_rows: int | None = None

    @property
    def site(self) -> Site:
        """The site of a steerer that `ModelSites.check` has passed."""
        return cast(Site, self.steerer.site)

    @property
    def gate(self) -> Gate | None:
        """The gate of the steerer."""
        return self.steerer.gate

    @property
    def involved(self) -> tuple[Steerer, ...]:
        """The steerer, and the condition of its gate."""
        return (self.steerer,) if self.gate is None else (self.steerer, self.gate.condition)

    def check_meaning(self) -> None:
        """Raise `InvalidInputError` for a level that a barrier gives no meaning to."""
        if self.gate is not None:
            _ = self.gate.threshold
        barrier = getattr(self.steerer.method, "barrier", None)
        if self.quantity == "level" and barrier is not None:
            for level in (min(self.values), max(self.values)):
                barrier.threshold(level)


def check_rows(n_rows: int, steerers: Steerers | None, amounts: "Amounts") -> None:
    """Raise `InvalidInputError` where lists for rows are not as long as there are prompts."""
    one = steerers is None or isinstance(steerers, (Steerer, SteererSet))
    n_steerers = None if one else len(steerers)  # type: ignore[arg-type]
    for what, n in (("amounts", amounts.n_rows), ("steerers", n_steerers)):
        if n is not None and n != n_rows:
            raise InvalidInputError(
                f"there are {n_rows} prompts and {n} {what}; give one for each, or one for all."
            )


def select_rows(steerers: Steerers, part: slice) -> Steerers:
    """The steerers of some of the rows."""
    return steerers if isinstance(steerers, (Steerer, SteererSet)) else steerers[part]


def assign_rows(steerers: Sequence[Steerers], amounts: "Amounts") -> list[RowAssignment]:
    """The row assignments of ``steerers``, each of which acts independently of the others.

    Rows with one steerer are moved together. Raises `InvalidInputError` where lists for rows
    differ in length, or a method does not have the quantity.
    """
    return [assignment for item in steerers for assignment in _assignments(item, amounts)]


@dataclass(frozen=True)
class Amounts:
    """The amounts, one for all rows (None: each method's default) or one for each row."""

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


def _assignments(steerers: Steerers, amounts: Amounts) -> list[RowAssignment]:
    if isinstance(steerers, (Steerer, SteererSet)) and not isinstance(amounts.value, tuple):
        common = [(member, _checked(member, amounts.value)) for member in steerers.members]
        return [RowAssignment(member, own.quantity, (_number(own),)) for member, own in common]
    of_rows: Sequence[AnySteerer | None] = (
        [steerers] * (amounts.n_rows or 0)
        if isinstance(steerers, (Steerer, SteererSet))
        else steerers
    )
    n_rows = len(of_rows)
    if amounts.n_rows is not None and amounts.n_rows != n_rows:
        raise InvalidInputError(
            f"there are {n_rows} steerers and {amounts.n_rows} amounts; give one of each for every"
            " row, or one for all."
        )
    rows: dict[tuple[int, str], tuple[Steerer, list[int], list[float]]] = {}
    for row, steerer in enumerate(of_rows):
        if steerer is not None and not isinstance(steerer, (Steerer, SteererSet)):
            raise InvalidInputError(
                f"row {row} has {steerer!r:.80} for a steerer; it must be a Steerer, a SteererSet"
                " or None."
            )
        amount = amounts.value[row] if isinstance(amounts.value, tuple) else amounts.value
        if steerer is None or (amount is None and amounts.n_rows is not None):
            continue
        for member in steerer.members:
            own = _checked(member, amount)
            key = (id(member), own.quantity)
            _, indices, values = rows.setdefault(key, (member, [], []))
            indices.append(row)
            values.append(_number(own))
    return [
        RowAssignment(
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
