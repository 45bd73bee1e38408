"""Asking for steerers by name, as in ``truthful@1.5+polite@T=5``."""

import re
from dataclasses import dataclass

from odesteer.artifact.base import Artifact
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

# A plus sign joins steerers, except in the exponent of a number (1e+3).
_JOIN = re.compile(r"\+(?!(?<=[\d.][eE]\+)\d)")


@dataclass(frozen=True)
class Asked:
    """One steerer that is asked for.

    Attributes:
        name: what it is called where it is asked for.
        amount: how much, as it is written (``1.5``, ``T=5``); None for the method's default.
    """

    name: str
    amount: str | None = None

    def amount_of(self, steerer: Artifact) -> Amount | None:
        """How much the steerer of this name is to steer; None for the default of each method.

        Raises `InvalidInputError` for text that is no amount, and for one that a method lacks.
        """
        if self.amount is None:
            return None
        amount = Amount.parse(self.amount, steerer.members[0].method.quantities[0])
        steerer.check_amount(amount)
        return amount

    def __str__(self) -> str:
        return self.name if self.amount is None else f"{self.name}@{self.amount}"


def read_asked(text: str) -> tuple[Asked, ...]:
    """The steerers in ``truthful@1.5``, ``truthful``, ``a@1.5+b@T=5``: applied one after another.

    A bare number is in the method's own quantity. Raises `InvalidInputError` for other text.
    """
    return tuple(_one(part, text) for part in _JOIN.split(text))


def check_name(name: str) -> None:
    """Raise `InvalidInputError` for what cannot name a steerer."""
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r:.80} cannot name a steerer; use up to 64 letters, digits, '-', '_' and '.',"
            " a letter or digit first."
        )


def _one(part: str, text: str) -> Asked:
    name, at, amount = (word.strip() for word in part.partition("@"))
    if not NAME.fullmatch(name) or bool(at) != bool(amount):
        raise InvalidInputError(
            f"{text!r:.80} does not ask for steerers; write a name, or NAME@AMOUNT, with '+'"
            " between several, as in 'truthful@1.5+polite@T=5'."
        )
    return Asked(name, amount or None)
