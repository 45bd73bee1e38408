"""Batch of running sequences: they share forward passes, join by prefill, leave when they end."""

import copy
import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.serving.engine.forward import ModelRunner
from odesteer.serving.engine.kv_cache import BatchCache
from odesteer.serving.engine.output import FAILED
from odesteer.serving.engine.sampling import sample, token_logprobs
from odesteer.serving.engine.sequence import SequenceState, fail_all
from odesteer.serving.engine.steering import BatchSteering, ReadTokens, SteeringEffect

_log = logging.getLogger("odesteer.serving")

_PREFILL_TOKENS = 8192
"""The most tokens of prompts, padding included, in one prefill; a longer prompt goes alone."""

_Effects = Iterable[tuple[int, SteeringEffect]]


class Batch:
    """Sequences that are generated together.

    Models whose cache cannot be merged (recurrent ones) are run in static batches: sequences join
    only an empty batch, and those that end wait for the others.

    A forward pass that raises is repeated with halves of its sequences, until those that it fails
    for are alone; only these end with an error. Recurrent models, whose state a failed pass may
    have changed, are the exception: all sequences of their batch end.

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
    def join(self, sequences: Sequence[SequenceState]) -> Sequence[SequenceState]:
        """Prefill the prompts of new sequences, and generate their first tokens.

        Returns those that could not join: after a failed prefill, all but the first half of a
        static batch.
        """
        try:
            logits, effects = self._prefill(sequences)
        except Exception as error:
            _log.error("prefill of %d prompts failed", len(sequences), exc_info=error)
            if len(sequences) == 1:
                sequences[0].fail(FAILED)
                return ()
            middle = len(sequences) // 2
            left, right = self.join(sequences[:middle]), sequences[middle:]
            return (*left, *(self.join(right) if self.accepts_sequences else right))
        _append_tokens(sequences, logits, effects)
        return ()

    @torch.no_grad()
    def step(self) -> None:
        """Generate one more token of each sequence."""
        self._drop_finished()
        if self._cache is None:
            return
        try:
            logits, effects = self._decode(self._cache)
        except Exception as error:
            _log.error("a step of %d sequences failed", len(self.sequences), exc_info=error)
            self._steering = None
            if len(self.sequences) == 1 or not self.can_merge:
                fail_all(self.sequences)
                self.clear()
            else:
                self._step_in_halves(self._cache)
            return
        _append_tokens(self.sequences, logits, effects)
        self._drop_finished()

    def _prefill(self, sequences: Sequence[SequenceState]) -> tuple[Tensor, _Effects]:
        """Logits and effects of steering; the sequences join the batch unless this fails."""
        prompts = [sequence.request.prompt for sequence in sequences]
        steerers = [sequence.steerers for sequence in sequences]
        steering = BatchSteering(self._lm, steerers, max(map(len, prompts)))
        with steering.active():
            logits, cache = self._runner.prefill(prompts)
        effects = list(steering.take_effects(cache.width - 1))
        self._cache = cache if self._cache is None else self._cache.merge(cache)
        self._steering = None
        self.sequences += sequences
        return logits, effects

    def _decode(self, cache: BatchCache) -> tuple[Tensor, _Effects]:
        if self._steering is None:
            self._steering = BatchSteering(
                self._lm,
                [() if each.finished else each.steerers for each in self.sequences],
                read=[
                    ReadTokens.of(each.request.prompt, each.generated[:-1], cache.width)
                    for each in self.sequences
                ],
            )
        tokens = [self._pad_token if each.finished else each.last_token for each in self.sequences]
        lengths, mask = cache.lengths, cache.mask
        try:
            with self._steering.active():
                logits = self._runner.decode(tokens, cache)
            effects = list(self._steering.take_effects(cache.width - 1))
        except Exception:
            cache.lengths, cache.mask = lengths, mask
            if self.can_merge:
                cache.crop()
            raise
        return logits, effects

    def _step_in_halves(self, cache: BatchCache) -> None:
        sequences, rows = self.sequences, range(len(self.sequences))
        self.clear()
        try:
            for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                half = copy.copy(self)
                half.sequences = [sequences[row] for row in part]
                half._cache, half._steering = cache.select(part), None
                half.step()
                if half._cache is not None:
                    self._cache = (
                        half._cache if self._cache is None else self._cache.merge(half._cache)
                    )
                    self.sequences += half.sequences
        except Exception as error:  # for want of memory
            _log.error("a failed step could not be repeated", exc_info=error)
            fail_all(sequences)
            self.clear()

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


def _append_tokens(sequences: Sequence[SequenceState], logits: Tensor, effects: _Effects) -> None:
    """Sample the next token of each running sequence, and record what steering did there."""
    for row, effect in effects:
        sequences[row].record_effect(effect)
    rows = [i for i, each in enumerate(sequences) if not each.finished]
    running = [sequences[i] for i in rows]
    logits = logits if len(rows) == len(sequences) else logits[rows]
    tokens = sample(logits, [each.sampler for each in running])
    for each, token, row_logits in zip(running, tokens, logits, strict=True):
        n_logprobs = each.request.sampling.logprobs
        try:
            if token is None or n_logprobs is None:
                each.append_token(token, None)
            else:
                logprobs = token_logprobs(row_logits, token, n_logprobs, each.tokenizer)
                each.append_token(token, logprobs)
        except Exception as error:
            _log.error("a token could not be appended", exc_info=error)
            each.fail(FAILED)
