"""Requests for steerers by name, as in ``truthful@1.5+polite@T=5``, and names of steerers."""

import re
from dataclasses import dataclass
from pathlib import Path

from odesteer.artifact.base import Artifact
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

# A plus sign joins steerers, except in the exponent of a number (1e+3).
_JOIN = re.compile(r"\+(?!(?<=[\d.][eE]\+)\d)")


@dataclass(frozen=True)
class SteererRequest:
    """A request for one steerer, ``NAME`` or ``NAME@AMOUNT``.

    Attributes:
        name: the name under which a server or an engine has the steerer.
        amount: how much, as text (``1.5``, ``T=5``); None for the method's default.
    """

    name: str
    amount: str | None = None

    def amount_of(self, steerer: Artifact) -> Amount | None:
        """The amount for the steerer of this name; None for the default of each method.

        Raises `InvalidInputError` for text that is no amount, and for one that a method lacks.
        """
        return None if self.amount is None else parse_amount(self.amount, steerer)

    def __str__(self) -> str:
        return self.name if self.amount is None else f"{self.name}@{self.amount}"


def parse_requests(text: str) -> tuple[SteererRequest, ...]:
    """The steerers in ``truthful@1.5``, ``truthful``, ``a@1.5+b@T=5``: applied one after another.

    A bare number is in the method's own quantity. Raises `InvalidInputError` for other text.
    """
    return tuple(_parse_request(part, text) for part in _JOIN.split(text))


def parse_amount(text: str, steerer: Artifact) -> Amount:
    """The amount in ``1.5`` (the first quantity of the method) or ``T=5``.

    Raises `InvalidInputError` for text that is no amount, and for one that a method lacks.
    """
    amount = Amount.parse(text, steerer.members[0].method.quantities[0])
    steerer.check_amount(amount)
    return amount


def split_path(text: str) -> tuple[str, str | None]:
    """The file (or folder, or repository) and the amount in ``FILE`` or ``FILE@AMOUNT``.

    An ``@`` may also be part of the name of a file that exists.
    """
    file, at, amount = text.rpartition("@")
    if not at or Path(text).exists():
        return text, None
    return file, amount


def check_name(name: str) -> None:
    """Raise `InvalidInputError` for what cannot name a steerer."""
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r:.80} cannot name a steerer; use up to 64 letters, digits, '-', '_' and '.',"
            " a letter or digit first."
        )


def _parse_request(part: str, text: str) -> SteererRequest:
    name, at, amount = (word.strip() for word in part.partition("@"))
    if not NAME.fullmatch(name) or bool(at) != bool(amount):
        raise InvalidInputError(
            f"{text!r:.80} does not ask for steerers; write a name, or NAME@AMOUNT, with '+'"
            " between several, as in 'truthful@1.5+polite@T=5'."
        )
    return SteererRequest(name, amount or None)
