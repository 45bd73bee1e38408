"""Steerers on the command line: files or hub names, each with an amount."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from odesteer.artifact import Steerer, from_pretrained
from odesteer.artifact.applied import Applied
from odesteer.artifact.request import parse_amount, split_path
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount


@dataclass(frozen=True)
class SteererFromFile(Applied):
    """One steerer from a file, with an amount; the members of a set are one each.

    Attributes:
        file: the path or hub name that was given.
    """

    file: str = ""

    def without_effect(self) -> Applied:
        """As `Applied.without_effect`; raises `UsageError`."""
        try:
            return super().without_effect()
        except InvalidInputError as error:
            raise UsageError(f"{self.file}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        (member,) = self.steerer.members
        return {
            "file": self.file,
            "digest": member.digest(),
            "method": type(member.method).__name__,
            "site": None if member.site is None else asdict(member.site),
            **self.arguments,
        }


def one_amount(
    level: float | None, T: float | None, strength: float | None, interpolation: float | None
) -> Amount | None:
    """The one of the options that is given. Raises `UsageError` for two, and for NaN."""
    with checking_usage():
        return Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)


def read_steerers(
    values: Sequence[str], amount: Amount | None, position: str | None
) -> list[SteererFromFile]:
    """The steerers of values like ``s.safetensors``, ``owner/name@1.5`` or ``…@T=5``.

    ``amount`` goes to those without one of their own; ``position`` replaces that of their sites.
    A file with a set gives each of its steerers. Raises `ArtifactError` for files that hold no
    steerer, and `UsageError` for amounts that their methods do not have.
    """
    return [steerer for value in values for steerer in _read(value, amount, position)]


def _read(value: str, amount: Amount | None, position: str | None) -> list[SteererFromFile]:
    file, text = split_path(value)
    found = from_pretrained(file)
    if text is not None and amount is not None:
        raise UsageError(f"--steer {value} says how much already; leave out --{amount.quantity}.")
    with checking_usage():
        if text is not None:
            amount = parse_amount(text, found)
        elif amount is not None:
            found.check_amount(amount)
    name = Path(file).name
    return [
        _from_file(
            file, name if member is found else f"{name}, {member.site}", member, amount, position
        )
        for member in found.members
    ]


def _from_file(
    file: str, name: str, steerer: Steerer, amount: Amount | None, position: str | None
) -> SteererFromFile:
    amount = steerer.method.default_amount if amount is None else amount
    with checking_usage():
        steerer.check_amount(amount)
    if steerer.site is None:
        raise UsageError(f"{file} is not bound to a layer of a model; save a Steerer with a Site.")
    site = steerer.site if position is None else replace(steerer.site, position=position)
    return SteererFromFile(replace(steerer, site=site), amount, name, file)
