"""Labels of rows: which values mean positive, and which negative."""

import re

_POSITIVE = ("1", "true", "positive", "pos", "yes")
_NEGATIVE = ("0", "-1", "false", "negative", "neg", "no")
_INTEGER = re.compile(r"([+-]?\d{1,3})(?:\.0*)?")

ACCEPTED_LABELS = (
    "1, true or 'positive' (also 'pos' and 'yes'), and 0, false or 'negative' (also -1, 'neg' and"
    " 'no')"
)


def label_text(value: object) -> str | None:
    """A label as text: ``"1"`` for 1, 1.0, ``"1"`` and ``"+1.0"``, lower case for words.

    None for what is neither a number nor a text.
    """
    if not isinstance(value, (bool, int, float, str)):
        return None
    text = str(value).strip().casefold()
    number = _INTEGER.fullmatch(text)
    return str(int(number[1])) if number else text


def label_meaning(text: str | None) -> bool | None:
    """True for a positive label, False for a negative one, None for others."""
    return True if text in _POSITIVE else False if text in _NEGATIVE else None
