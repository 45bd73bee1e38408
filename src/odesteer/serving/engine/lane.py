"""Sequences of similar length that are decoded together: one cache, one forward pass a step."""

import logging
from collections.abc import Iterable, Sequence

from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.serving.engine.forward import ModelRunner
from odesteer.serving.engine.kv_cache import BatchCache
from odesteer.serving.engine.output import FAILED
from odesteer.serving.engine.sampling import sample, token_logprobs
from odesteer.serving.engine.sequence import SequenceState, fail_all
from odesteer.serving.engine.steering import BatchSteering, SteeringEffect

_log = logging.getLogger("odesteer.serving")

_PADDING = 4096
"""Tokens of padding that a lane may have in any case; beyond, at most one half of its tokens."""


class Lane:
    """Sequences that are decoded together.

    A forward pass that raises is repeated with halves of the sequences, until those that it fails
    for are alone; only these end with an error.

    Attributes:
        sequences: one for each row of the cache.
        cache: their keys and values, or the state of a recurrent model.
    """

    def __init__(
        self,
        lm: SteeredModel,
        runner: ModelRunner,
        sequences: Sequence[SequenceState],
        cache: BatchCache,
        *,
        can_merge: bool,
    ) -> None:
        self._lm = lm
        self._runner = runner
        self._can_merge = can_merge
        self._steering: BatchSteering | None = None
        self.sequences = list(sequences)
        self.cache = cache

    @property
    def size(self) -> int:
        """Tokens in memory, padding included: rows × width."""
        return len(self.sequences) * self.cache.width

    def fits(self, other: BatchCache) -> bool:
        """Whether these rows and others together have little padding."""
        lengths = [*self.cache.lengths, *other.lengths]
        n_tokens = sum(lengths)
        return len(lengths) * max(lengths) - n_tokens <= max(_PADDING, n_tokens // 2)

    def add(self, sequences: Sequence[SequenceState], cache: BatchCache) -> None:
        """Add rows. If it fails (for want of memory), this lane is as before."""
        self.cache = self.cache.merge(cache)
        self.sequences += sequences
        self._steering = None

    def step(self) -> list[SequenceState]:
        """Generate one more token of each sequence.

        Returns sequences whose state is lost and has to be computed again: those of a recurrent
        model after a pass that raised.
        """
        self.drop_finished()
        if not self.sequences:
            return []
        try:
            logits, effects = self._decode()
        except Exception as error:
            _log.error("a step of %d sequences failed", len(self.sequences), exc_info=error)
            self._steering = None
            if len(self.sequences) == 1:
                fail_all(self.sequences)
                self.sequences = []
                return []
            if self._can_merge:
                self._step_in_halves()
                return []
            lost = [each for each in self.sequences if not each.finished]
            self.sequences = []
            return lost
        append_tokens(self.sequences, logits, effects)
        self.drop_finished()
        return []

    def drop_finished(self) -> None:
        """Drop the rows of sequences that have ended; recurrent models keep them to the end."""
        running = [i for i, each in enumerate(self.sequences) if not each.finished]
        if not running:
            self.sequences = []
        elif self._can_merge and len(running) < len(self.sequences):
            self.cache.keep(running)
            self.sequences = [self.sequences[i] for i in running]
            self._steering = None

    def _decode(self) -> tuple[Tensor, Iterable[tuple[int, SteeringEffect]]]:
        cache = self.cache
        if self._steering is None:
            self._steering = BatchSteering(
                self._lm,
                [() if each.finished else each.steerers for each in self.sequences],
                read=[each.read_tokens(cache.width) for each in self.sequences],
            )
        pad = self._runner.pad_token
        tokens = [pad if each.finished else each.last_token for each in self.sequences]
        lengths, mask = cache.lengths, cache.mask
        try:
            with self._steering.active():
                logits = self._runner.decode(tokens, cache)
            effects = list(self._steering.take_effects([cache.width - 1] * len(tokens)))
        except Exception:
            cache.lengths, cache.mask = lengths, mask
            if self._can_merge:
                cache.crop()
            raise
        return logits, effects

    def _step_in_halves(self) -> None:
        sequences, cache, rows = self.sequences, self.cache, range(len(self.sequences))
        whole: Lane | None = None
        try:
            for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                chosen = [sequences[row] for row in part]
                half = Lane(self._lm, self._runner, chosen, cache.select(part), can_merge=True)
                half.step()
                if half.sequences and whole is None:
                    whole = half
                elif half.sequences and whole is not None:
                    whole.add(half.sequences, half.cache)
        except Exception as error:  # for want of memory
            _log.error("a failed step could not be repeated", exc_info=error)
            fail_all(sequences)
            whole = None
        self.sequences = [] if whole is None else whole.sequences
        if whole is not None:
            self.cache = whole.cache


def append_tokens(
    sequences: Sequence[SequenceState],
    logits: Tensor,
    effects: Iterable[tuple[int, SteeringEffect]],
) -> None:
    """Sample the next token of each running sequence, and record what steering did there."""
    for row, effect in effects:
        sequences[row].record_effect(effect)
    rows = [i for i, each in enumerate(sequences) if not each.finished]
    if not rows:
        return
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
