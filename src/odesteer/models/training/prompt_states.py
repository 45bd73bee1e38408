"""Keys and values of the unmoved beginnings of texts: computed once, used by every pass."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.models.architecture.layers import accepts_argument
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.batches import pad_batch
from odesteer.models.tokens.special_tokens import pad_token_id

# Shorter beginnings are not worth a pass of their own.
_LEAST_SHARED = 8


@dataclass(frozen=True)
class PromptStates:
    """The beginnings of the texts of a batch, padded on the left.

    Attributes:
        cache: keys and values of the different beginnings; of the layers that are not run again
            only their shape.
        rows: `[n]`, which of them each text has.
        mask: `[n, columns]`, 1 for tokens and 0 for padding.
    """

    cache: Any
    rows: Tensor
    mask: Tensor

    def fresh(self, device: torch.device, below: int) -> Any:
        """A cache for one pass over the texts, which may add to it.

        Of the layers up to ``below``, which do not run, it has only the shape.
        """
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        n = len(self.rows)
        for number, layer in enumerate(cache.layers):
            for name in ("keys", "values"):
                kept = getattr(layer, name)
                if number <= below:
                    kept = kept[:1].to(device).expand(n, *kept.shape[1:])
                else:
                    kept = kept[self.rows].to(device)
                setattr(layer, name, kept)
        return cache

    def kept(self, below: int, keep: Callable[[Tensor], Tensor]) -> "PromptStates":
        """The same, kept, without what the layers up to ``below`` hold."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for number, layer in enumerate(cache.layers):
            for name in ("keys", "values"):
                states = getattr(layer, name)
                if number <= below:
                    states = torch.zeros((), dtype=states.dtype).expand(1, *states.shape[1:])
                else:
                    states = keep(states)
                setattr(layer, name, states)
        return PromptStates(cache, self.rows, self.mask)


def can_keep(lm: ObservedModel) -> bool:
    """Whether the model's cache is one of keys and values alone."""
    model = lm.model
    return (
        getattr(model, "config", None) is not None
        and not getattr(model, "_is_stateful", False)
        and accepts_argument(model, "past_key_values")
        and _is_plain(_empty(lm))
    )


def computed(lm: ObservedModel, beginnings: Sequence[tuple[int, ...]]) -> PromptStates | None:
    """The states of these beginnings in all layers; None for a model that fills no such cache."""
    different = list(dict.fromkeys(beginnings))
    number = {beginning: i for i, beginning in enumerate(different)}
    rows = torch.tensor([number[beginning] for beginning in beginnings])
    shared = _shared_beginning(different)
    cache, mask = _empty(lm), torch.empty(len(different), 0, dtype=torch.long, device=lm.device)
    if shared:
        mask = torch.ones(len(different), len(shared), dtype=torch.long, device=lm.device)
        _run(lm, [shared], mask[:1, :0], cache)
        if not (_is_plain(cache) and all(layer.is_initialized for layer in cache.layers)):
            return None
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(different), *layer.keys.shape[1:])
            layer.values = layer.values.expand(len(different), *layer.values.shape[1:])
    mask = _run(lm, [beginning[len(shared) :] for beginning in different], mask, cache)
    if not _is_plain(cache) or len(cache.layers) != len(lm.layers):
        return None
    if not all(
        layer.is_initialized and len(layer.keys) == len(different) for layer in cache.layers
    ):
        return None
    return PromptStates(cache, rows, mask[rows.to(mask.device)])


def _shared_beginning(beginnings: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all of several begin with, as chats do with a system prompt; not the whole of any."""
    if len(beginnings) < 2:
        return ()
    shortest = min(map(len, beginnings)) - 1
    columns = zip(*(beginning[:shortest] for beginning in beginnings), strict=True)
    n = next((i for i, tokens in enumerate(columns) if len(set(tokens)) > 1), shortest)
    return beginnings[0][:n] if n >= _LEAST_SHARED else ()


def _run(lm: ObservedModel, texts: Sequence[tuple[int, ...]], before: Tensor, cache: Any) -> Tensor:
    """Add texts to a cache, padded on the left behind what it has; the mask of all of it."""
    pad = pad_token_id(lm.tokenizer, lm.model)
    inputs: dict[str, Any] = dict(pad_batch(texts, pad, "left", lm.device))
    mask = torch.cat([before, inputs["attention_mask"]], dim=1)
    inputs["attention_mask"] = mask
    if accepts_argument(lm.model, "position_ids"):
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, before.shape[1] :]
    else:
        del inputs["position_ids"]
    if accepts_argument(lm.model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    with torch.no_grad():
        lm.model(**inputs, past_key_values=cache, use_cache=True)
    return mask


def _empty(lm: ObservedModel) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=lm.model.config)


def _is_plain(cache: Any) -> bool:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
