"""Steerers on the command line, each with how much it is to steer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from odesteer.artifact import Site, Steerer, from_pretrained
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.methods import Amount


@dataclass(frozen=True)
class Applied:
    """A steerer from a file, and how much it steers.

    Each steerer of a set stands for itself; ``name`` says which one it is.
    """

    file: str
    name: str
    steerer: Steerer
    site: Site
    amount: Amount

    @property
    def quantity(self) -> dict[str, Any]:
        """The amount as the argument that says it."""
        return {self.amount.quantity: self.amount.value}

    @property
    def looking(self) -> "Applied":
        """The same steerer moving nothing, for a receipt of an unsteered text."""
        for quantity in ("T", "strength", "interpolation"):
            if quantity in self.steerer.method.quantities:
                return replace(self, amount=Amount(quantity, 0.0))
        raise UsageError(f"{self.file}: its method has no amount that moves nothing.")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "file": self.file,
            "digest": self.steerer.digest(),
            "method": type(self.steerer.method).__name__,
            "site": asdict(self.site),
            **self.quantity,
        }

    def __str__(self) -> str:
        return f"{self.name} at {self.amount}"


def one_amount(
    level: float | None, T: float | None, strength: float | None, interpolation: float | None
) -> Amount | None:
    """The one of the options that is given. Raises `UsageError` for two, and for NaN."""
    with checking_usage():
        return Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)


def read_steerers(
    words: Sequence[str], amount: Amount | None, position: str | None
) -> list[Applied]:
    """The steerers that words like ``s.safetensors``, ``owner/name@1.5`` or ``…@T=5`` name.

    ``amount`` goes to those that have none of their own, and ``position`` replaces that of their
    sites. A file with a set of steerers gives each of them. Raises `ArtifactError` for files that
    are no steerers, and `UsageError` for amounts that their methods do not have.
    """
    return [each for word in words for each in _read(word, amount, position)]


def _read(word: str, amount: Amount | None, position: str | None) -> list[Applied]:
    file, text = _split(word)
    found = from_pretrained(file)
    if text is not None and amount is not None:
        raise UsageError(f"--steer {word} says how much already; leave out --{amount.quantity}.")
    with checking_usage():
        if text is not None:
            amount = Amount.parse(text, found.members[0].method.quantities[0])
        if amount is not None:
            found.check_amount(amount)
    name = Path(file).name
    return [
        _applied(
            file, name if member is found else f"{name}, {member.site}", member, amount, position
        )
        for member in found.members
    ]


def _applied(
    file: str, name: str, steerer: Steerer, amount: Amount | None, position: str | None
) -> Applied:
    with checking_usage():
        amount = steerer.method.default_amount if amount is None else amount
        steerer.method.check_amount(amount)
    if steerer.site is None:
        raise UsageError(f"{file} is not bound to a layer of a model; save a Steerer with a Site.")
    site = steerer.site if position is None else replace(steerer.site, position=position)
    return Applied(file, name, replace(steerer, site=site), site, amount)


def _split(word: str) -> tuple[str, str | None]:
    """File and amount; an @ may be part of the file's name."""
    file, at, text = word.rpartition("@")
    if not at or Path(word).exists():
        return word, None
    return file, text
