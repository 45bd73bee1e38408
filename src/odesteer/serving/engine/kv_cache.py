"""Keys and values of several batches as one: rows that join, rows that leave.

Rows are padded on the left, so that all of them end in the same column.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for a model.

    Layers with a sliding window get to keep every column, which the mask hides from them, so that
    rows can be merged.
    """
    proper = DynamicCache(config=config)
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    plain = "chunked_attention" not in kinds and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in proper.layers
    )
    return DynamicCache() if plain else proper


def can_merge(cache: Any) -> bool:
    """Whether every layer holds plain keys and values, `[rows, heads, columns, width]`."""
    if not isinstance(cache, DynamicCache):
        return False
    filled = _filled(cache)
    return bool(filled) and all(
        type(layer) is DynamicLayer and layer.keys.ndim == layer.values.ndim == 4
        for layer in filled
    )


def merged(cache: DynamicCache, others: DynamicCache) -> DynamicCache:
    """The rows of one cache and, below them, those of another; both may be changed."""
    width = max(cache.get_seq_length(), others.get_seq_length())
    for layer, other in zip(_filled(cache), _filled(others), strict=True):
        for name in ("keys", "values"):
            parts = (_widened(getattr(each, name), width) for each in (layer, other))
            setattr(layer, name, torch.cat([*parts]))
    return cache


def keep_rows(cache: DynamicCache, rows: Sequence[int], width: int) -> None:
    """Keep some of the rows, and the last ``width`` columns, which hold all of their tokens."""
    for layer in _filled(cache):
        index = torch.tensor(rows, device=layer.keys.device)
        layer.keys = layer.keys[:, :, -width:].index_select(0, index)
        layer.values = layer.values[:, :, -width:].index_select(0, index)


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    missing = width - states.shape[2]
    return pad(states, (0, 0, missing, 0)) if missing else states


def _filled(cache: DynamicCache) -> list[Any]:
    """Layers that share the keys and values of others hold none of their own."""
    return [layer for layer in cache.layers if getattr(layer, "is_initialized", True)]
