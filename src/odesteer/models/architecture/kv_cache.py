"""KV caches and recurrent states: the names of their arguments, and how much they hold."""

import weakref
from collections.abc import Collection
from typing import Any

from torch import Tensor

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
"""Names that models of transformers give the argument, and the output, that holds their cache."""


def cache_argument(names: Collection[str]) -> str:
    """Which of the arguments ``names`` of a forward pass is the cache."""
    return next((name for name in CACHE_ARGUMENTS if name in names), CACHE_ARGUMENTS[0])


def cached_columns(cache: Any) -> int | Tensor | None:
    """Number of columns in a cache, 0 for one that is empty, None if it cannot tell.

    Static caches keep the number in a tensor on the device.
    """
    try:
        columns = cache.get_seq_length()
        return columns if isinstance(columns, Tensor) else int(columns)
    except (AttributeError, ValueError):  # not a cache of keys and values, or without any
        try:
            return None if cache.has_previous_state() else 0
        except (AttributeError, ValueError, TypeError):
            return None


def cache_reference(cache: Any) -> Any:
    """A weak reference to a cache; a strong one to what cannot be referred to weakly."""
    try:
        return weakref.ref(cache)
    except TypeError:  # a list of states
        return lambda: cache
