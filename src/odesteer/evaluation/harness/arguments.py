"""Reads the steering arguments of the harness's model: steerers and amounts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odesteer.artifact import Applied, Steerer, SteererSet, load, parse_amount, split_path
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

SteerArgument = str | Path | Steerer | SteererSet
"""A steerer or set, or a file that holds one, with an amount: ``truthful.safetensors@1.5``."""


def read_steering(
    steer: SteerArgument | Sequence[SteerArgument] | None, amount: Amount | None
) -> list[Applied]:
    """The steerers in the order in which they are applied.

    ``amount`` is for those without an amount of their own. Raises `ArtifactError` for files that
    are no steerers, and `InvalidInputError` for amounts that their methods do not have.
    """
    if steer is None:
        if amount is not None:
            raise InvalidInputError(f"{amount} needs a steerer to apply it; say steer=FILE.")
        return []
    is_list = isinstance(steer, Sequence) and not isinstance(steer, str | SteererSet)
    each = steer if is_list else [steer]
    return [_read(one, amount) for one in each]  # type: ignore[union-attr, arg-type]


def applied_json(applied: Applied) -> dict[str, Any]:
    """What is applied as JSON data, each steerer of a set on its own."""
    return {
        "digest": applied.steerer.digest(),
        "steerers": [
            {
                "method": type(member.method).__name__,
                "site": None if member.site is None else asdict(member.site),
                "amount": str(applied.amount or member.method.default_amount),
                "fitted_on": member.provenance.model_id,
            }
            for member in applied.steerer.members
        ],
    }


def _read(steer: SteerArgument, amount: Amount | None) -> Applied:
    if isinstance(steer, (Steerer, SteererSet)):
        return Applied(steer, amount)
    file, text = split_path(str(steer))
    found = load(file)
    if text is None:
        return Applied(found, amount)
    if amount is not None:
        raise InvalidInputError(
            f"steer={steer} says how much already; leave out {amount.quantity}=."
        )
    return Applied(found, parse_amount(text, found))
