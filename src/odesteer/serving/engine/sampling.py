"""Sampling of the next token of each row, as `generate` of transformers does for one row."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from odesteer.models.generation.watermark import watermarking_config
from odesteer.serving.engine.grammar import JsonMatcher
from odesteer.serving.engine.output import TokenAlternative
from odesteer.serving.engine.request import SamplingParams

# Below this the division would overflow, and the likeliest token is certain.
_GREEDY_BELOW = 1e-5

TokenLogprobs = tuple[float, Sequence[TokenAlternative]]
"""The log-probability of the chosen token, and the likeliest alternatives."""


class RowSampler:
    """How one row samples: its parameters, its random generator, the tokens that it has.

    Attributes:
        sampling: the parameters.
        generator: makes the text depend on its seed alone; None if it takes the likeliest token.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        prompt: Sequence[int],
        device: torch.device,
        grammar: JsonMatcher | None = None,
    ) -> None:
        self.sampling = sampling
        self.generator = _random_generator(sampling, device)
        self._grammar = grammar
        self._seen = set(prompt)
        self._device = device
        self._tokens = list(prompt)
        self._watermark: Any = None
        self._counts: Counter[int] = Counter()

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before temperature and truncation."""
        its = self.sampling
        return bool(
            its.repetition_penalty != 1
            or its.presence_penalty
            or its.frequency_penalty
            or its.logit_bias
            or self._grammar is not None
        )

    @property
    def is_marked(self) -> bool:
        """Whether the text carries a watermark."""
        return self.sampling.watermark is not None

    def mark(self, scores: Tensor) -> Tensor:
        """``scores``, `[1, vocabulary]`, after the watermark's processor, the last of all.

        To be called once for each token: SynthID keeps a state.
        """
        if self._watermark is None:
            config = watermarking_config(self.sampling.watermark or "")
            self._watermark = config.construct_processor(scores.shape[-1], self._device)
        ids = torch.tensor([self._tokens], device=scores.device)
        marked: Tensor = self._watermark(ids, scores.clone())
        return marked

    @property
    def is_complete(self) -> bool:
        """Whether the grammar of the text allows no more tokens."""
        return self._grammar is not None and self._grammar.is_complete

    def append(self, token: int) -> None:
        """Note the next token of the text. Raises `RuntimeError` if the grammar forbids it."""
        self._counts[token] += 1
        self._seen.add(token)
        self._tokens.append(token)
        if self._grammar is not None:
            self._grammar.append(token)

    def adjust(self, logits: Tensor) -> Tensor:
        """``logits``, `[1, vocabulary]`, with biases, penalties and the grammar applied."""
        its = self.sampling
        logits = logits.clone()
        if its.logit_bias:
            ids, values = zip(*its.logit_bias, strict=True)
            logits[0, list(ids)] += torch.tensor(values, device=logits.device)
        if its.repetition_penalty != 1:
            seen = torch.tensor([sorted(self._seen)], device=logits.device)
            logits = RepetitionPenaltyLogitsProcessor(its.repetition_penalty)(seen, logits)
        if self._counts and (its.presence_penalty or its.frequency_penalty):
            ids, counts = zip(*self._counts.items(), strict=True)
            amounts = its.frequency_penalty * torch.tensor(counts, device=logits.device)
            logits[0, list(ids)] -= amounts + its.presence_penalty
        return logits if self._grammar is None else self._grammar.masked(logits)


def _random_generator(sampling: SamplingParams, device: torch.device) -> torch.Generator | None:
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
    largest, tokens = logits.max(dim=-1)  # NaN where there is one
    valid: list[bool] = (largest < torch.inf).tolist()
    adjusted = [i for i, row in enumerate(rows) if row.adjusts and valid[i]]
    if adjusted:
        logits = logits.clone()
        for i in adjusted:
            logits[i : i + 1] = rows[i].adjust(logits[i : i + 1])
        tokens = logits.argmax(dim=-1)
    for i, row in enumerate(rows):
        if row.is_marked and row.generator is None and valid[i]:
            tokens[i] = row.mark(logits[i : i + 1])[0].argmax()
    groups: dict[tuple[float, int, float, float], list[int]] = {}
    for i, row in enumerate(rows):
        its = row.sampling
        if row.generator is not None:
            key = (its.temperature, its.top_k, its.top_p, its.min_p)
            groups.setdefault(key, []).append(i)
    for key, members in groups.items():
        sampled = [row for row in members if valid[row]]
        if not sampled:
            continue
        scores = logits if len(sampled) == len(rows) else logits[sampled]
        for warper in _warpers(*key):
            scores = warper(None, scores)
        for i, row_index in enumerate(sampled):
            row, own = rows[row_index], scores[i : i + 1]
            probabilities = torch.softmax(row.mark(own) if row.is_marked else own, dim=-1)
            tokens[row_index] = torch.multinomial(probabilities, 1, generator=row.generator)[0, 0]
    return [token if ok else None for token, ok in zip(tokens.tolist(), valid, strict=True)]


@lru_cache(maxsize=256)
def _warpers(temperature: float, top_k: int, top_p: float, min_p: float) -> tuple[Any, ...]:
    warpers: list[Any] = []
    if temperature != 1:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
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
