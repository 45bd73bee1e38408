"""Steering positions: which columns of a forward pass are prompt, generated or last."""

import threading
import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from odesteer.artifact.positions import SteerPosition, parse_position
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer

Ends = tuple[int, ...]
"""Number of columns, from the first, that are the prompt: one for all rows, or one for each."""


def steered_columns(position: SteerPosition | str, length: int, past: int, ends: Ends) -> range:
    """The columns of one forward pass that a steerer at ``position`` moves in at least one row.

    Args:
        position: see `odesteer.artifact.positions` (`last` is that of arXiv 2602.17560).
        length: number of columns in this pass.
        past: number of columns before them, held in a cache.
        ends: where the prompts end.

    It depends on where the prompt ends and not on how prompt and response are cut into passes.
    Padding and phases of the text are excluded elsewhere.
    """
    if isinstance(position, str):
        position = parse_position(position)
    if position.tokens == "all":
        return range(length)
    if position.tokens == "prompt":
        return range(_within(max(ends) - past, length))
    first = _within(min(ends) - position.lead + position.start - past, length)
    if position.stop is None or len(ends) > 1:  # padding may lie in between
        return range(first, length)
    stop = _within(ends[0] - position.lead + position.stop - past, length)
    return range(first, max(first, stop))


def _within(column: int, length: int) -> int:
    return min(max(column, 0), length)


class PromptWidth:
    """The number of columns of a batch that are the prompt; set as long as this object lives.

    One number for all rows, or one for each. Raises `InvalidInputError` for anything but positive
    integers.
    """

    def __init__(self, columns: int | Sequence[int] | Tensor) -> None:
        given: Any = columns.tolist() if isinstance(columns, Tensor) else columns
        several = isinstance(given, Sequence) and not isinstance(given, str)
        for one in given if several else [given]:
            if not is_integer(one):
                raise InvalidInputError(f"prompt_width must be an integer, not {one!r}.")
            if one < 1:
                raise InvalidInputError(f"prompt_width must be positive, not {one}.")
        if several and not given:
            raise InvalidInputError("prompt_width must have a number for each row, not none.")
        self.ends: Ends | None = tuple(given) if several else (given,)


class ThreadPromptWidth(threading.local):
    """The prompt width that each thread has set, if any."""

    def __init__(self) -> None:
        self._current: weakref.ref[PromptWidth] | None = None

    @property
    def ends(self) -> Ends | None:
        width = None if self._current is None else self._current()
        return None if width is None else width.ends

    def set(self, width: PromptWidth | None) -> PromptWidth | None:
        """Set a width and return the one set before.

        It is held weakly, so that an interrupt before it is unset unsets it.
        """
        before = None if self._current is None else self._current()
        self._current = None if width is None else weakref.ref(width)
        return before

    def __deepcopy__(self, memo: Any) -> "ThreadPromptWidth":
        return ThreadPromptWidth()

    def __reduce__(self) -> Any:
        return ThreadPromptWidth, ()
