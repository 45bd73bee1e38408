"""Text fields of rows: validation, and suggestions for misspelt names."""

import difflib
from collections.abc import Callable, Iterable

from odesteer.errors import DataError
from odesteer.untrusted import brief, has_lone_surrogate

# Longer texts are refused: no model reads them, and they point to a broken file.
MAX_CHARACTERS = 16_000_000


# How an argument is spelled in errors, from its name and value.
Spelling = Callable[[str, object], str]


def python_argument(name: str, value: object) -> str:
    """An argument as Python spells it: ``duplicates='drop'``."""
    return f"{name}={value!r}"


def check_text(where: str, name: str, value: object, *, may_be_blank: bool = False) -> str:
    """Check that a value is text and return it; ``where`` and ``name`` locate it in errors."""
    if value is None:
        raise DataError(f"{where}, field {name!r}: found null; a text is needed.")
    if not isinstance(value, str):
        raise DataError(
            f"{where}, field {name!r}: found {brief(value)} ({type(value).__name__}); a text is"
            " needed."
        )
    if len(value) > MAX_CHARACTERS:
        raise DataError(
            f"{where}, field {name!r}: the text has {len(value):,} characters; the limit is"
            f" {MAX_CHARACTERS:,}."
        )
    if not may_be_blank and not value.strip():
        raise DataError(f"{where}, field {name!r}: the text is blank, found {brief(value)}.")
    if has_lone_surrogate(value):
        raise DataError(
            f"{where}, field {name!r}: half of a surrogate pair in {brief(value)}; write the whole"
            " character."
        )
    return value


def listed(names: Iterable[object]) -> str:
    """Names for an error message, the first few of them."""
    names = list(names)
    shown = ", ".join(brief(name) for name in names[:12])
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{shown}{more}" if names else "none"


def near(name: str, known: Iterable[object]) -> str | None:
    """The known name that is closest to ``name``, if one is close."""
    by_folded = {str(k).strip().casefold(): str(k) for k in known}
    found = difflib.get_close_matches(name.strip().casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def is_typo(name: str, meant: str) -> bool:
    """Whether ``name`` is ``meant`` with another case or a typing error."""
    folded = name.strip().casefold()
    return (
        abs(len(folded) - len(meant)) <= 1
        and difflib.SequenceMatcher(None, folded, meant).ratio() >= 0.8
    )
