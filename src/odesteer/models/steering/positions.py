"""Steering positions: which columns of a forward pass are prompt, generated, last."""

import threading
import weakref

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


def steered_columns(
    position: str, length: int, past: int = 0, prompt_width: int | None = None
) -> range:
    """The columns of one forward pass that a steerer at ``position`` moves.

    Args:
        position: `last`, the last position of every forward pass: the last prompt token, then
            each generated one (arXiv 2602.17560); `generated`, the tokens that the model has
            generated, as they are fed back to it; `prompt`, all tokens of the prompt; `all`.
        length: number of columns in this pass.
        past: number of columns before them, held in a cache.
        prompt_width: number of columns, from the first, that are the prompt. Where it is None
            a pass with one column and a cache is taken for generation, any other for a prompt.

    With a known ``prompt_width``, `last` moves what generation token by token would have moved
    (every column from the last of the prompt on), however many of them one pass holds: so
    scoring a whole sequence, or generating without a cache, agrees with generating.

    Columns of a batch that is padded on the left; padding itself is excluded elsewhere.
    """
    if position == "all":
        return range(length)
    if prompt_width is None:
        if position == "last":
            return range(length - 1, length)
        decoding = past > 0 and length == 1
        return range(length) if decoding == (position == "generated") else range(0)
    first = prompt_width - (position == "last")
    split = min(max(first - past, 0), length)
    return range(split) if position == "prompt" else range(split, length)


class PromptWidth:
    """The number of columns of a batch that are the prompt; set as long as this object lives.

    Raises `InvalidInputError` for anything but a positive integer.
    """

    def __init__(self, columns: int) -> None:
        if not is_integer(columns):
            raise InvalidInputError(f"prompt_width must be an integer, not {columns!r}.")
        if columns < 1:
            raise InvalidInputError(f"prompt_width must be positive, not {columns}.")
        self.columns = columns


class ThreadPromptWidth(threading.local):
    """The prompt width that each thread has set, if any."""

    def __init__(self) -> None:
        self._current: weakref.ref[PromptWidth] | None = None

    @property
    def columns(self) -> int | None:
        width = None if self._current is None else self._current()
        return None if width is None else width.columns

    def set(self, width: PromptWidth | None) -> PromptWidth | None:
        """Set a width and return the one set before.

        It is held weakly, so that an interrupt before it is unset unsets it.
        """
        before = None if self._current is None else self._current()
        self._current = None if width is None else weakref.ref(width)
        return before
