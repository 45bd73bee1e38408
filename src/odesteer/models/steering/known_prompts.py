"""Where prompts end, found from the passes over a sequence."""

import weakref
from typing import Any

import torch
from torch import Tensor


class KnownPrompts:
    """Where prompts end, if nobody says so.

    The first pass over a sequence is its prompt, and what follows is generated. A pass follows if
    it has a cache that is in use, or if it begins with the prompt before it (without a cache).
    """

    def __init__(self) -> None:
        self._end: int | None = None
        self._ends: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._prompt: Tensor | None = None

    def end_of(self, cache: Any, past: int, length: int, inputs: Any) -> int:
        """The number of columns that are the prompt, of a sequence whose next pass is given."""
        if past:
            end = self._of_cache(cache)
            if end is None and self._end is not None and past >= self._end:
                end = self._end
            if end is None:  # in use before anybody looked
                end = past + length if length > 1 else past
        else:
            end = self._of_same_prompt(inputs) if cache is None else None
            if end is None:
                end = length
                self._prompt = inputs if isinstance(inputs, Tensor) else None
        self._end = end
        try:
            if cache is not None:
                self._ends[cache] = end
        except TypeError:  # a list of states, which cannot be referred to weakly
            pass
        return end

    def _of_same_prompt(self, inputs: Any) -> int | None:
        """The length of the last prompt if ``inputs`` begin with it."""
        prompt = self._prompt
        if prompt is None or not isinstance(inputs, Tensor) or inputs.ndim != prompt.ndim:
            return None
        n = prompt.shape[1]
        longer = inputs.shape[0] == prompt.shape[0] and inputs.shape[1] > n
        if not longer or inputs.dtype != prompt.dtype:
            return None
        return n if torch.equal(inputs[:, :n], prompt) else None

    def _of_cache(self, cache: Any) -> int | None:
        try:
            return self._ends.get(cache)
        except TypeError:
            return None
