"""KV cache of a batch: sequences join and leave.

Rows are padded on the left, so that all sequences end in the same column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from odesteer.models.tokens.batches import left_padding_mask


@dataclass
class BatchCache:
    """What a model remembers of the sequences of a batch, padded on the left to one width.

    Attributes:
        lengths: number of tokens of each sequence.
        cache: the model's own object: keys and values, or the state of a recurrent model.
        mask: `[rows, width]`, 1 for tokens, 0 for padding.
    """

    lengths: list[int]
    cache: Any
    mask: Tensor

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    @property
    def can_merge(self) -> bool:
        """Whether rows can be added and removed: all layers hold plain keys and values.

        These are `[rows, heads, columns, width]`.
        """
        if not isinstance(self.cache, DynamicCache):
            return False
        layers = _initialized_layers(self.cache)
        return bool(layers) and all(
            type(layer) is DynamicLayer and layer.keys.ndim == layer.values.ndim == 4
            for layer in layers
        )

    def merge(self, others: "BatchCache") -> "BatchCache":
        """These rows and, below them, others; both caches may be changed.

        If it fails (for want of memory), this one is as before.
        """
        lengths = [*self.lengths, *others.lengths]
        before = self.cache.get_seq_length()
        width = max(before, others.cache.get_seq_length())
        layers = _initialized_layers(self.cache), _initialized_layers(others.cache)
        try:
            for layer, other in zip(*layers, strict=True):
                for name in ("keys", "values"):
                    states = (_pad_left(getattr(each, name), width) for each in (layer, other))
                    setattr(layer, name, torch.cat([*states]))
            mask = left_padding_mask(lengths, self.mask.device)
        except BaseException:
            self._restore(before)
            raise
        return BatchCache(lengths, self.cache, mask)

    def crop(self) -> None:
        """Drop the columns beyond the mask, which a failed pass has added to some layers."""
        for layer in _initialized_layers(self.cache):
            layer.keys = layer.keys[:, :, : self.width]
            layer.values = layer.values[:, :, : self.width]

    def select(self, rows: Sequence[int]) -> "BatchCache":
        """A copy of some rows, with as many of the last columns as they have tokens."""
        lengths = [self.lengths[row] for row in rows]
        width = max(lengths)
        copied = DynamicCache()
        for i, layer in enumerate(self.cache.layers):
            if getattr(layer, "is_initialized", True):
                index = torch.tensor(rows, device=layer.keys.device)
                states = (layer.keys[:, :, -width:], layer.values[:, :, -width:])
                copied.update(*(each.index_select(0, index) for each in states), i)
        return BatchCache(lengths, copied, left_padding_mask(lengths, self.mask.device))

    def _restore(self, width: int) -> None:
        """Undo what `merge` has done to some layers: added rows, and padding on the left."""
        n = len(self.lengths)
        for layer in _initialized_layers(self.cache):
            layer.keys = layer.keys[:n, :, -width:]
            layer.values = layer.values[:n, :, -width:]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, and as many of the last columns as they have tokens."""
        self.lengths = [self.lengths[row] for row in rows]
        width = max(self.lengths)
        for layer in _initialized_layers(self.cache):
            index = torch.tensor(rows, device=layer.keys.device)
            layer.keys = layer.keys[:, :, -width:].index_select(0, index)
            layer.values = layer.values[:, :, -width:].index_select(0, index)
        self.mask = left_padding_mask(self.lengths, self.mask.device)


def empty_cache(config: Any) -> DynamicCache:
    """An empty cache of keys and values for a model.

    Layers with a sliding window keep every column, which the attention mask hides from them, so
    that rows can be merged.
    """
    windowed = DynamicCache(config=config)
    layer_types = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    can_be_plain = "chunked_attention" not in layer_types and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in windowed.layers
    )
    return DynamicCache() if can_be_plain else windowed


def _pad_left(states: Tensor, width: int) -> Tensor:
    missing = width - states.shape[2]
    return pad(states, (0, 0, missing, 0)) if missing else states


def _initialized_layers(cache: DynamicCache) -> list[Any]:
    """Layers with keys and values of their own; others share those of another layer."""
    return [layer for layer in cache.layers if getattr(layer, "is_initialized", True)]
