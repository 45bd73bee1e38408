"""Forward passes of a batch: columns of prompts (prefill), then tokens one by one (decoding)."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.models.architecture.kv_cache import cache_argument
from odesteer.models.tokens.batches import pad_batch
from odesteer.serving.engine.kv_cache import BatchCache, empty_cache


class ModelRunner:
    """Runs a model over prompts, and then over one token of each sequence at a time.

    Attributes:
        device: of the model.
        has_kv_cache: whether the model keeps keys and values, and not a recurrent state.
    """

    def __init__(self, lm: SteeredModel, pad_token: int) -> None:
        self._lm = lm
        self.device = lm.device
        self.pad_token = pad_token
        self._arguments = frozenset(inspect.signature(lm.model.forward).parameters)
        self._cache_argument = cache_argument(self._arguments)
        self.has_kv_cache = self._cache_argument == "past_key_values"

    def prompts(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """The model's inputs for whole prompts, padded on the left; each `[rows, columns]`."""
        return pad_batch(rows, self.pad_token, "left", self.device)

    def prefill(
        self,
        inputs: Mapping[str, Tensor],
        columns: range,
        cache: Any = None,
        *,
        all_logits: bool = False,
    ) -> tuple[Tensor, Any]:
        """Run some columns of prompts, those before them in ``cache``.

        Returns the logits of the last column, `[rows, 1, vocabulary]`, or of all of them, in
        float32, and the model's cache.
        """
        part = {name: each[:, columns.start : columns.stop] for name, each in inputs.items()}
        part["attention_mask"] = inputs["attention_mask"][:, : columns.stop]
        if cache is None and self.has_kv_cache:  # others create their own state
            cache = empty_cache(self._lm.model.config)
        return self._forward(part, cache, n_logits=len(columns) if all_logits else 1)

    def decode(self, tokens: Sequence[int], cache: BatchCache) -> Tensor:
        """The logits after one more token of each row, `[rows, vocabulary]`; ``cache`` grows."""
        mask = torch.cat([cache.mask, cache.mask.new_ones(len(tokens), 1)], dim=1)
        inputs = {
            "input_ids": torch.tensor(tokens, device=self.device)[:, None],
            "attention_mask": mask,
            "position_ids": torch.tensor(cache.lengths, device=self.device)[:, None],
        }
        if not self.has_kv_cache:  # a recurrent state has no columns, and one token no padding
            del inputs["attention_mask"]
        logits, cache.cache = self._forward(inputs, cache.cache)
        cache.mask = mask
        cache.lengths = [length + 1 for length in cache.lengths]
        return logits[:, -1]

    def _forward(
        self, inputs: Mapping[str, Tensor], cache: Any, n_logits: int = 1
    ) -> tuple[Tensor, Any]:
        arguments: dict[str, Any] = {
            name: value for name, value in inputs.items() if name in self._arguments
        }
        if "logits_to_keep" in self._arguments:
            arguments["logits_to_keep"] = n_logits
        output = self._lm.model(**arguments, **{self._cache_argument: cache}, use_cache=True)
        # In float32, as in transformers' `generate`.
        logits = output.logits[:, -n_logits:].to(copy=True, dtype=torch.float32)
        return logits, getattr(output, self._cache_argument)
