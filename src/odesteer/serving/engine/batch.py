"""Batch of running sequences: they share forward passes, join by prefill, leave when they end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.serving.engine.forward import ModelRunner
from odesteer.serving.engine.kv_cache import BatchCache
from odesteer.serving.engine.sampling import sample, token_logprobs
from odesteer.serving.engine.sequence import SequenceState
from odesteer.serving.engine.steering import BatchSteering

_PREFILL_TOKENS = 8192
"""The most tokens of prompts, padding included, in one prefill; a longer prompt goes alone."""


class Batch:
    """Sequences that are generated together.

    Models whose cache cannot be merged (recurrent ones) are run in static batches: sequences join
    only an empty batch, and those that end wait for the others.

    Attributes:
        sequences: one for each row.
        can_merge: whether sequences can join and leave between steps.
    """

    def __init__(self, lm: SteeredModel, pad_token: int) -> None:
        self._lm = lm
        self._pad_token = pad_token
        self._runner = ModelRunner(lm, pad_token)
        self._cache: BatchCache | None = None
        self._steering: BatchSteering | None = None
        self.sequences: list[SequenceState] = []
        with torch.no_grad():
            _, cache = self._runner.prefill([[pad_token, pad_token], [pad_token]])
            self.can_merge = cache.can_merge

    @property
    def accepts_sequences(self) -> bool:
        """Whether sequences can join now."""
        return self.can_merge or not self.sequences

    def n_prefill(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many of these prompts, from the first, go into one prefill."""
        width = 0
        for n, prompt in enumerate(prompts):
            width = max(width, len(prompt))
            if n and width * (n + 1) > _PREFILL_TOKENS:
                return n
        return len(prompts)

    @torch.no_grad()
    def join(self, sequences: Sequence[SequenceState]) -> None:
        """Prefill the prompts of new sequences, and generate their first tokens."""
        prompts = [sequence.request.prompt for sequence in sequences]
        steerers = [sequence.steerers for sequence in sequences]
        steering = BatchSteering(self._lm, steerers, max(map(len, prompts)))
        with steering.active():
            logits, cache = self._runner.prefill(prompts)
        _append_tokens(sequences, logits, steering, cache)
        # Only now, so that a failure above leaves the running sequences alone.
        self._cache = cache if self._cache is None else self._cache.merge(cache)
        self._steering = None
        self.sequences += sequences

    @torch.no_grad()
    def step(self) -> None:
        """Generate one more token of each sequence."""
        self._drop_finished()
        if self._cache is None:
            return
        if self._steering is None:
            self._steering = BatchSteering(
                self._lm, [() if each.finished else each.steerers for each in self.sequences]
            )
        tokens = [self._pad_token if each.finished else each.last_token for each in self.sequences]
        with self._steering.active():
            logits = self._runner.decode(tokens, self._cache)
        _append_tokens(self.sequences, logits, self._steering, self._cache)
        self._drop_finished()

    def clear(self) -> None:
        """Drop all sequences."""
        self.sequences, self._cache, self._steering = [], None, None

    def _drop_finished(self) -> None:
        running = [i for i, each in enumerate(self.sequences) if not each.finished]
        if not running:
            self.clear()
        elif self.can_merge and len(running) < len(self.sequences) and self._cache is not None:
            self._cache.keep(running)
            self.sequences = [self.sequences[i] for i in running]
            self._steering = None


def _append_tokens(
    sequences: Sequence[SequenceState], logits: Tensor, steering: BatchSteering, cache: BatchCache
) -> None:
    """Sample the next token of each running sequence, and record what steering did there."""
    for row, effect in steering.take_effects(cache.width - 1):
        sequences[row].record_effect(effect)
    rows = [i for i, each in enumerate(sequences) if not each.finished]
    running = [sequences[i] for i in rows]
    logits = logits if len(rows) == len(sequences) else logits[rows]
    tokens = sample(logits, [each.sampler for each in running])
    logprobs = [
        None
        if token is None or each.request.sampling.logprobs is None
        else token_logprobs(row, token, each.request.sampling.logprobs, each.tokenizer)
        for row, token, each in zip(logits, tokens, running, strict=True)
    ]
    for each, token, figures in zip(running, tokens, logprobs, strict=True):
        each.append_token(token, figures)
