"""Choosing the next token of each row, exactly as `generate` of transformers does for one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from odesteer.serving.engine.request import SamplingParams

# Below this the division would overflow, and the likeliest token is certain.
_GREEDY = 1e-5

Draw = tuple[SamplingParams, torch.Generator | None]
"""How a row chooses, and what it draws from (None: it takes the likeliest)."""


def generator_of(sampling: SamplingParams, device: torch.device) -> torch.Generator | None:
    """A generator of a row's own, so that its text depends on its seed alone."""
    if sampling.temperature < _GREEDY:
        return None
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def choose(logits: Tensor, rows: Sequence[Draw]) -> list[int | None]:
    """One token for each row of `[rows, vocabulary]`; None where logits are NaN."""
    chosen = logits.argmax(dim=-1)
    groups: dict[tuple[float, int, float], list[int]] = {}
    for row, (sampling, generator) in enumerate(rows):
        if generator is not None:
            key = (sampling.temperature, sampling.top_k, sampling.top_p)
            groups.setdefault(key, []).append(row)
    usable = ~logits.isnan().any(dim=-1) & ~(logits == torch.inf).any(dim=-1)
    good: list[bool] = usable.tolist()
    for key, members in groups.items():
        drawing = [row for row in members if good[row]]
        if not drawing:
            continue
        scores = logits if len(drawing) == len(rows) else logits[drawing]
        for warper in _warpers(*key):
            scores = warper(None, scores)
        for i, row in enumerate(drawing):
            probabilities = torch.softmax(scores[i : i + 1], dim=-1)
            chosen[row] = torch.multinomial(probabilities, 1, generator=rows[row][1])[0, 0]
    return [token if fine else None for token, fine in zip(chosen.tolist(), good, strict=True)]


@lru_cache(maxsize=256)
def _warpers(temperature: float, top_k: int, top_p: float) -> tuple[Any, ...]:
    warpers: list[Any] = []
    if temperature != 1:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return tuple(warpers)
