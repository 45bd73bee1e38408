"""How much of a batch is the prompt, where somebody knows."""

import threading
import weakref

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


class SaidWidth:
    """How many columns of a batch are the prompt; it is said as long as this object lives.

    Raises `InvalidInputError` for what is no number of columns.
    """

    def __init__(self, columns: int) -> None:
        if not is_integer(columns):
            raise InvalidInputError(f"prompt_width must be an integer, not {columns!r}.")
        if columns < 1:
            raise InvalidInputError(f"prompt_width must be positive, not {columns}.")
        self.columns = columns


class PromptWidth(threading.local):
    """The width of the prompt that each thread says, if it does."""

    def __init__(self) -> None:
        self._said: weakref.ref[SaidWidth] | None = None

    @property
    def columns(self) -> int | None:
        said = None if self._said is None else self._said()
        return None if said is None else said.columns

    def say(self, width: SaidWidth | None) -> SaidWidth | None:
        """Say a width, and return what was said before.

        It is held weakly: whoever is interrupted before taking it back has taken it back.
        """
        before = None if self._said is None else self._said()
        self._said = None if width is None else weakref.ref(width)
        return before
