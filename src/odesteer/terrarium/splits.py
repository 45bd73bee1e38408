"""Disjoint shares of questions, templates, items and names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar, get_args

from odesteer.errors import InvalidInputError

Split = Literal["fit", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Half to fit on, a fifth to tune on, the rest to report on. Interleaved, so that a family of
# neighbouring facts or synonyms is spread over all three.
_PATTERN: tuple[Split, ...] = (
    "fit", "test", "fit", "validation", "fit", "test", "fit", "validation", "test", "fit",
)  # fmt: skip

T = TypeVar("T")


def share(items: Iterable[T], split: Split) -> tuple[T, ...]:
    """The items that belong to ``split``: a fixed rule by position, the same for everybody."""
    if split not in SPLITS:
        raise InvalidInputError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return tuple(item for i, item in enumerate(items) if _PATTERN[i % len(_PATTERN)] == split)
