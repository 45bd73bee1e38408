"""ModelRunner passes over rows of different lengths."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.models.batches import padded
from odesteer.serving.engine.kv_cache import can_merge, keep_rows, merged, new_cache

_CACHES = ("past_key_values", "cache_params", "state")


@dataclass
class KVCache:
    """What a model remembers of the rows of a batch, padded on the left to one width.

    Attributes:
        lengths: number of tokens of each row.
        cache: of the model.
        mask: `[rows, width]`, 1 for tokens.
    """

    lengths: list[int]
    cache: Any
    mask: Tensor

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    @property
    def can_merge(self) -> bool:
        return can_merge(self.cache)

    def join(self, others: "KVCache") -> "KVCache":
        """These rows and, below them, others."""
        lengths = [*self.lengths, *others.lengths]
        return KVCache(
            lengths, merged(self.cache, others.cache), _left_mask(lengths, self.mask.device)
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Keep some of the rows."""
        self.lengths = [self.lengths[row] for row in rows]
        keep_rows(self.cache, rows, max(self.lengths))
        self.mask = _left_mask(self.lengths, self.mask.device)


class ModelRunner:
    """Runs a model over prompts, and then over one token of each row at a time."""

    def __init__(self, lm: SteeredModel, pad: int) -> None:
        self._lm = lm
        self._pad = pad
        self._names = frozenset(inspect.signature(lm.model.forward).parameters)
        self._cache_name = next((name for name in _CACHES if name in self._names), _CACHES[0])
        self._has_keys = self._cache_name == "past_key_values"

    def prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, KVCache]:
        """The logits `[rows, vocabulary]` behind each prompt, and what is remembered."""
        inputs = padded(prompts, self._pad, "left", self._lm.device)
        logits, cache = self._run(inputs, self._empty())
        return logits, KVCache([*map(len, prompts)], cache, inputs["attention_mask"])

    def tokens(self, tokens: Sequence[int], columns: KVCache) -> Tensor:
        """The logits behind one more token of each row; ``columns`` grow by it."""
        device = self._lm.device
        mask = torch.cat([columns.mask, columns.mask.new_ones(len(tokens), 1)], dim=1)
        inputs = {
            "input_ids": torch.tensor(tokens, device=device)[:, None],
            "attention_mask": mask,
            "position_ids": torch.tensor(columns.lengths, device=device)[:, None],
        }
        if not self._has_keys:  # one token has no padding, and what came before is no column
            del inputs["attention_mask"]
        logits, columns.cache = self._run(inputs, columns.cache)
        columns.mask = mask
        columns.lengths = [length + 1 for length in columns.lengths]
        return logits

    def _empty(self) -> Any:
        """Models that remember in another way than by keys and values begin with None."""
        return new_cache(self._lm.model.config) if self._has_keys else None

    def _run(self, inputs: dict[str, Tensor], cache: Any) -> tuple[Tensor, Any]:
        given = {name: value for name, value in inputs.items() if name in self._names}
        if "logits_to_keep" in self._names:
            given["logits_to_keep"] = 1  # type: ignore[assignment]
        output = self._lm.model(**given, **{self._cache_name: cache}, use_cache=True)
        # As transformers does before it chooses a token.
        logits = output.logits[:, -1].to(copy=True, dtype=torch.float32)
        return logits, getattr(output, self._cache_name)


def _left_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    width = max(lengths)
    columns = torch.arange(width, device=device)
    starts = torch.tensor([width - length for length in lengths], device=device)
    return (columns >= starts[:, None]).long()
