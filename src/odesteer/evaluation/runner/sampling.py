"""Sampling with a random generator for each completion, independent of its batch."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odesteer.evaluation.task import Decoding


def seed_of(*parts: object) -> int:
    """A seed that depends on nothing but its parts, on any machine."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


class ItemSampler:
    """Chooses each row's next token by a uniform number of that row's own.

    Given to transformers as a logits processor under greedy decoding: whatever else is in the
    batch, a row's choices depend on its own logits and seed only. Tokens are sorted by
    probability and the number is looked up in their cumulated distribution (temperature, then
    top-p), so that the same item under two methods shares its luck.
    """

    def __init__(self, seeds: Sequence[int], max_new_tokens: int, decoding: Decoding) -> None:
        self._temperature = decoding.temperature
        self._top_p = decoding.top_p
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._numbers = torch.stack(
            [torch.rand(max_new_tokens, generator=g, dtype=torch.float64) for g in generators]
        )
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[n, vocabulary]` in which only the chosen token is left."""
        ordered, tokens = (scores.float() / self._temperature).sort(
            dim=-1, descending=True, stable=True
        )
        shares = ordered.softmax(dim=-1).double()
        cumulated = shares.cumsum(dim=-1)
        # A token belongs to the nucleus if those before it do not fill it.
        kept = (cumulated - shares) < self._top_p
        cumulated = (shares * kept).cumsum(dim=-1)
        numbers = self._numbers[:, self._step, None].to(cumulated.device)
        self._step += 1
        place = torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)
        place = place.clamp_max(kept.sum(dim=-1, keepdim=True) - 1)
        chosen = tokens.gather(-1, place)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


def generation_options(
    decoding: Decoding, seeds: Sequence[int], max_new_tokens: int
) -> dict[str, Any]:
    """Options of `SteeredModel.generate` for one completion a seed."""
    if decoding.temperature == 0:
        return decoding.arguments
    from transformers import LogitsProcessorList

    sampler = ItemSampler(seeds, max_new_tokens, decoding)
    return {
        "do_sample": False,
        "num_beams": 1,
        "logits_processor": LogitsProcessorList([sampler]),
        **decoding.options,
    }
