"""Sampling of the next token of each row, as `generate` of transformers does for one row."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from odesteer.serving.engine.output import TokenAlternative
from odesteer.serving.engine.request import SamplingParams

# Below this the division would overflow, and the likeliest token is certain.
_GREEDY_BELOW = 1e-5

RowSampler = tuple[SamplingParams, torch.Generator | None]
"""How a row samples, and its random generator (None: greedily)."""

TokenLogprobs = tuple[float, Sequence[TokenAlternative]]
"""The log-probability of the chosen token, and the likeliest alternatives."""


def random_generator(sampling: SamplingParams, device: torch.device) -> torch.Generator | None:
    """A generator for one row, so that its text depends on its seed alone; None if greedy."""
    if sampling.temperature < _GREEDY_BELOW:
        return None
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def sample(logits: Tensor, rows: Sequence[RowSampler]) -> list[int | None]:
    """A token for each row of ``logits``, `[rows, vocabulary]`; None where logits are not finite.

    Logits of -inf are allowed: they mask a token.
    """
    tokens = logits.argmax(dim=-1)
    groups: dict[tuple[float, int, float], list[int]] = {}
    for row, (sampling, generator) in enumerate(rows):
        if generator is not None:
            key = (sampling.temperature, sampling.top_k, sampling.top_p)
            groups.setdefault(key, []).append(row)
    is_valid = ~logits.isnan().any(dim=-1) & ~(logits == torch.inf).any(dim=-1)
    valid: list[bool] = is_valid.tolist()
    for key, members in groups.items():
        sampled = [row for row in members if valid[row]]
        if not sampled:
            continue
        scores = logits if len(sampled) == len(rows) else logits[sampled]
        for warper in _warpers(*key):
            scores = warper(None, scores)
        for i, row in enumerate(sampled):
            probabilities = torch.softmax(scores[i : i + 1], dim=-1)
            tokens[row] = torch.multinomial(probabilities, 1, generator=rows[row][1])[0, 0]
    return [token if ok else None for token, ok in zip(tokens.tolist(), valid, strict=True)]


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


def token_logprobs(
    logits: Tensor, token: int, n_alternatives: int, tokenizer: Any
) -> TokenLogprobs:
    """Log-probabilities of a token and of the likeliest ones under ``logits``, `[vocabulary]`."""
    logprobs = torch.log_softmax(logits, dim=-1)
    likeliest = logprobs.topk(min(n_alternatives, len(logprobs)))
    texts = [tokenizer.decode([token_id]) for token_id in likeliest.indices.tolist()]
    alternatives = tuple(map(TokenAlternative, texts, likeliest.values.tolist()))
    return float(logprobs[token]), alternatives
