"""Forward passes of a batch: prefill of prompts, then decoding of one token a row."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.models.architecture.kv_cache import cache_argument
from odesteer.models.tokens.batches import pad_batch
from odesteer.serving.engine.kv_cache import BatchCache, empty_cache


class ModelRunner:
    """Runs a model over prompts, and then over one token of each sequence at a time."""

    def __init__(self, lm: SteeredModel, pad_token: int) -> None:
        self._lm = lm
        self._pad_token = pad_token
        self._arguments = frozenset(inspect.signature(lm.model.forward).parameters)
        self._cache_argument = cache_argument(self._arguments)
        self._has_kv_cache = self._cache_argument == "past_key_values"

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, BatchCache]:
        """The logits after each prompt, `[rows, vocabulary]`, and the cache."""
        inputs = pad_batch(prompts, self._pad_token, "left", self._lm.device)
        logits, cache = self._forward(inputs, self._empty_cache())
        return logits, BatchCache([*map(len, prompts)], cache, inputs["attention_mask"])

    def decode(self, tokens: Sequence[int], cache: BatchCache) -> Tensor:
        """The logits after one more token of each row; ``cache`` grows by it."""
        device = self._lm.device
        mask = torch.cat([cache.mask, cache.mask.new_ones(len(tokens), 1)], dim=1)
        inputs = {
            "input_ids": torch.tensor(tokens, device=device)[:, None],
            "attention_mask": mask,
            "position_ids": torch.tensor(cache.lengths, device=device)[:, None],
        }
        if not self._has_kv_cache:  # a recurrent state has no columns, and one token no padding
            del inputs["attention_mask"]
        logits, cache.cache = self._forward(inputs, cache.cache)
        cache.mask = mask
        cache.lengths = [length + 1 for length in cache.lengths]
        return logits

    def _empty_cache(self) -> Any:
        """None for models without a KV cache, which create their own state."""
        return empty_cache(self._lm.model.config) if self._has_kv_cache else None

    def _forward(self, inputs: dict[str, Tensor], cache: Any) -> tuple[Tensor, Any]:
        arguments = {name: value for name, value in inputs.items() if name in self._arguments}
        if "logits_to_keep" in self._arguments:
            arguments["logits_to_keep"] = 1  # type: ignore[assignment]
        output = self._lm.model(**arguments, **{self._cache_argument: cache}, use_cache=True)
        # In float32, as in transformers' `generate`.
        logits = output.logits[:, -1].to(copy=True, dtype=torch.float32)
        return logits, getattr(output, self._cache_argument)
