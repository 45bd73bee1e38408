"""Reads the steering arguments of the harness's model: steerers and amounts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from odesteer.artifact import Steerer, SteererSet, load
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

Steers = str | Path | Steerer | SteererSet
"""A steerer or set, or a file that holds one, with an amount: ``truthful.safetensors@1.5``."""


@dataclass(frozen=True)
class Applied:
    """A steerer, and how much it steers (None: the default of its method)."""

    steerer: Steerer | SteererSet
    amount: Amount | None

    @property
    def quantity(self) -> dict[str, Any]:
        """The amount as the argument that says it."""
        return {} if self.amount is None else {self.amount.quantity: self.amount.value}

    def to_json(self) -> dict[str, Any]:
        """As plain data, each steerer of a set on its own."""
        return {
            "digest": self.steerer.digest(),
            "steerers": [
                {
                    "method": type(member.method).__name__,
                    "site": None if member.site is None else asdict(member.site),
                    "amount": str(self.amount or member.method.default_amount),
                    "fitted_on": member.provenance.model_id,
                }
                for member in self.steerer.members
            ],
        }


def read_steering(steer: Steers | Sequence[Steers] | None, amount: Amount | None) -> list[Applied]:
    """The steerers in the order in which they are applied.

    ``amount`` goes to those that have none of their own. Raises `ArtifactError` for files that
    are no steerers, and `InvalidInputError` for amounts that their methods do not have.
    """
    if steer is None:
        if amount is not None:
            raise InvalidInputError(f"{amount} needs a steerer to apply it; say steer=FILE.")
        return []
    several = isinstance(steer, Sequence) and not isinstance(steer, str | SteererSet)
    each = steer if several else [steer]
    return [_read(one, amount) for one in each]  # type: ignore[union-attr, arg-type]


def _read(steer: Steers, amount: Amount | None) -> Applied:
    if isinstance(steer, (Steerer, SteererSet)):
        found, text = steer, None
    else:
        file, text = _split(str(steer))
        found = load(file)
    if text is not None:
        if amount is not None:
            raise InvalidInputError(
                f"steer={steer} says how much already; leave out {amount.quantity}=."
            )
        amount = Amount.parse(text, found.members[0].method.quantities[0])
    if amount is not None:
        found.check_amount(amount)
    return Applied(found, amount)


def _split(word: str) -> tuple[str, str | None]:
    """File and amount; an @ may be part of the file's name."""
    file, at, text = word.rpartition("@")
    if not at or Path(word).exists():
        return word, None
    return file, text
