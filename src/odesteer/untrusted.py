"""Untrusted input: strict JSON, checks of numbers and texts, short representations for errors."""

import json
import math
import reprlib
from typing import Any, TypeGuard

from odesteer.errors import InvalidInputError, OdesteerError

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 60
_brief.maxlevel, _brief.maxlist, _brief.maxtuple, _brief.maxdict = 2, 4, 4, 4


def parse_json(raw: bytes | str, what: str, error: type[OdesteerError] = InvalidInputError) -> Any:
    """The value of a JSON text; ``what`` names the text in errors.

    Raises ``error`` for anything that is not JSON, for repeated keys, NaN and infinities, and for
    nesting that is too deep.
    """
    try:
        return json.loads(raw, object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{what} is nested too deep.") from None
    except ValueError as reason:  # JSON and UTF-8 errors, numbers of thousands of digits
        raise error(f"{what} is not valid JSON: {reason}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The ``object_pairs_hook`` of a JSON decoder that raises `ValueError` for repeated keys."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {brief(repeated)} stands twice in one object")
    return fields


def is_integer(value: object, minimum: int | None = None) -> TypeGuard[int]:
    """Whether a value is an integer of at least ``minimum``; booleans are not."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return minimum is None or value >= minimum


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite integer or float; booleans are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair; JSON can spell one, tokenizers break on it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def brief(value: object) -> str:
    """The representation of a value, shortened for an error message."""
    return _brief.repr(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
