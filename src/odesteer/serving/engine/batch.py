"""Batch of running sequences: prompts join in chunks between two decoding steps."""

import logging
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence

import torch

from odesteer.models import SteeredModel
from odesteer.serving.engine.chunk_size import ChunkSize
from odesteer.serving.engine.forward import ModelRunner
from odesteer.serving.engine.kv_cache import BatchCache
from odesteer.serving.engine.lane import Lane, append_tokens
from odesteer.serving.engine.output import FAILED
from odesteer.serving.engine.prefill import Prefill, equal_prompts
from odesteer.serving.engine.sequence import SequenceState, fail_all

_log = logging.getLogger("odesteer.serving")

_ALONE_TOKENS = 2048
"""The most tokens of short prompts, padding included, in a pass while nothing is decoded."""

_ALONE_CHUNKS = 4
"""Chunks of a long prompt in a pass while nothing is decoded; new requests wait for its end."""

_SCORED_TOKENS = 512
"""The same where all of them have logits."""


class Batch:
    """Sequences that run: those whose prompts are computed, and those that are decoded.

    Decoded sequences are in lanes of similar length, so that a long one does not widen the others.
    In a round each lane makes a step, and a chunk of prompts is computed: short prompts before long
    ones, of which one is computed at a time.

    Models whose cache cannot be merged (recurrent ones) are run in static batches: sequences join
    only an empty batch, their prompts are computed whole, and those that end wait for the others.
    After a pass that raised, their states are computed again from their tokens, in halves.

    Args:
        chunk: the most tokens of prompts, rows × columns, in a pass beside decoding.
        max_tokens: the most tokens that run together, rows × width; a longer one runs alone.

    Attributes:
        can_merge: whether sequences can join and leave between steps.
    """

    def __init__(self, lm: SteeredModel, pad_token: int, *, chunk: int, max_tokens: int) -> None:
        self._lm = lm
        self._chunk = chunk
        self._max_tokens = max_tokens
        self._chunk_size = ChunkSize(chunk)
        self._step_seconds = 0.0
        self._runner = ModelRunner(lm, pad_token)
        self._pending: deque[SequenceState] = deque()
        self._retries: deque[list[SequenceState]] = deque()
        self._long: Prefill | None = None
        self._lanes: list[Lane] = []
        with torch.no_grad():
            inputs = self._runner.prompts([[pad_token, pad_token], [pad_token]])
            _, cache = self._runner.prefill(inputs, range(2))
        self.can_merge = BatchCache([2, 1], cache, inputs["attention_mask"]).can_merge

    @property
    def sequences(self) -> list[SequenceState]:
        """All sequences, whether their prompts are computed or not."""
        return [*self._waiting(), *(each for lane in self._lanes for each in lane.sequences)]

    @property
    def accepts_sequences(self) -> bool:
        """Whether sequences can join now."""
        return self.can_merge or not self.sequences

    @property
    def n_sequences(self) -> int:
        return len(self.sequences)

    def has_room(self, n_tokens: int) -> bool:
        """Whether a prompt of so many tokens can join those that run."""
        waiting = sum(len(each.tokens) for each in self._waiting())
        taken = waiting + sum(lane.size for lane in self._lanes)
        return not taken or taken + n_tokens <= self._max_tokens

    def add(self, sequence: SequenceState) -> None:
        """Let a sequence join."""
        self._pending.append(sequence)

    @torch.no_grad()
    def step(self) -> None:
        """Compute prompts, as many as fit, and generate one more token of each sequence."""
        began = time.perf_counter()
        for lane in self._lanes:
            lost = lane.step()
            if lost:
                middle = len(lost) // 2
                self._retries += [half for half in (lost[:middle], lost[middle:]) if half]
        self._step_seconds = time.perf_counter() - began
        self._lanes = [lane for lane in self._lanes if lane.sequences]
        self._merge_lanes()
        if self.can_merge:
            self._prefill_chunk()
        elif not self._lanes:
            self._prefill_static()

    def clear(self) -> None:
        """Drop all sequences."""
        self._pending.clear()
        self._retries.clear()
        self._long, self._lanes = None, []

    def _waiting(self) -> Iterator[SequenceState]:
        yield from self._pending
        for part in self._retries:
            yield from part
        if self._long is not None:
            yield from self._long.sequences

    def _prefill_static(self) -> None:
        group = self._retries.popleft() if self._retries else [*self._pending]
        if not self._retries and group and group[0] in self._pending:
            self._pending.clear()
        group = [each for each in group if not each.finished]
        if group:
            self._run_whole(group, share=False)

    def _prefill_chunk(self) -> None:
        """Short prompts that fit whole, and then some columns of a long one."""
        was_decoding, computed = bool(self._lanes), 0
        limit = self._chunk if was_decoding else max(_ALONE_TOKENS, self._chunk)
        group = self._next_short(limit)
        if group:
            computed = sum(len(each[0].tokens) for each in equal_prompts(group))
            self._run_whole(group)
        if self._long is not None and self._long.is_cancelled:
            self._long = None
        if self._long is None:
            self._long = self._next_long()
        if self._long is None:
            return
        if not self._lanes:
            self._advance(self._long, self._long_limit)
        elif was_decoding:
            long, n_done, began = self._long, self._long.n_done, time.perf_counter()
            self._advance(long, self._chunk_size.tokens(self._step_seconds, computed))
            n_tokens = (long.n_done - n_done) * long.n_rows
            if n_tokens:
                self._chunk_size.note(n_tokens, time.perf_counter() - began)

    @property
    def _long_limit(self) -> int:
        """The most tokens of a prompt in a pass."""
        return self._chunk if self._lanes else _ALONE_CHUNKS * self._chunk

    def _next_short(self, limit: int) -> list[SequenceState]:
        """The next sequences of which the prompts go into one pass; at least one retry.

        ``limit`` is the most tokens of all, padding included.
        """
        if self._retries:
            return [each for each in self._retries.popleft() if not each.finished]
        group: list[SequenceState] = []
        kept: deque[SequenceState] = deque()
        keys: set[Hashable] = set()
        width, longest = 0, min(limit, self._long_limit)
        while self._pending:
            each = self._pending.popleft()
            if each.finished:
                continue
            n = len(each.tokens)
            more = {*keys, each.prefill_key}
            if n <= longest and (max(width, n) * len(more) <= limit or not group):
                group.append(each)
                keys, width = more, max(width, n)
            else:
                kept.append(each)
                if n <= longest:  # later ones come later
                    break
        self._pending.extendleft(reversed(kept))
        return group

    def _next_long(self) -> Prefill | None:
        """The first prompt that is longer than a pass, with all sequences that have it."""
        limit = self._long_limit
        first = next((each for each in self._pending if len(each.tokens) > limit), None)
        if first is None:
            return None
        group = [each for each in self._pending if each.prefill_key == first.prefill_key]
        self._pending = deque(each for each in self._pending if each not in group)
        return Prefill(self._lm, self._runner, group)

    def _advance(self, prefill: Prefill, n_tokens: int) -> None:
        is_whole = any(
            steerer is not None and steerer.reads_whole_prompts
            for steerer in prefill.sequences[0].steerers
        )
        n_columns = prefill.width if is_whole else prefill.n_columns(n_tokens)
        try:
            prefill.run(n_columns)
            if prefill.is_done:
                self._long = None
                self._join(prefill)
        except Exception as error:
            self._long = None
            self._fail_or_halve(prefill.sequences, error)

    def _run_whole(self, sequences: list[SequenceState], *, share: bool = True) -> None:
        try:
            prefill = Prefill(self._lm, self._runner, sequences, share=share)
            while not prefill.is_done:
                prefill.run(
                    prefill.n_columns(_SCORED_TOKENS) if prefill.is_scored else prefill.width
                )
            self._join(prefill)
        except Exception as error:
            self._fail_or_halve(sequences, error)

    def _fail_or_halve(self, sequences: Sequence[SequenceState], error: Exception) -> None:
        _log.error("prefill of %d prompts failed", len(sequences), exc_info=error)
        groups = equal_prompts(each for each in sequences if not each.finished)
        if len(groups) <= 1:
            fail_all(sequences, FAILED)
            return
        middle = len(groups) // 2
        for half in (groups[middle:], groups[:middle]):
            self._retries.appendleft([each for group in half for each in group])

    def _join(self, prefill: Prefill) -> None:
        """Move sequences to a lane, and generate their first tokens."""
        sequences, cache, logits, effects = prefill.finish()
        lane = next((lane for lane in self._lanes if self.can_merge and lane.fits(cache)), None)
        if lane is None:
            lane = Lane(self._lm, self._runner, sequences, cache, can_merge=self.can_merge)
            self._lanes.append(lane)
        else:
            lane.add(sequences, cache)
        for each in sequences:
            each.end_prompt()
        append_tokens(sequences, logits, effects)
        lane.drop_finished()
        self._lanes = [lane for lane in self._lanes if lane.sequences]

    def _merge_lanes(self) -> None:
        """Merge lanes that have come to be of similar length; fewer passes a step."""
        for lane in self._lanes[1:]:
            into = self._lanes[0]
            if into.fits(lane.cache):
                into.add(lane.sequences, lane.cache)
                self._lanes.remove(lane)
                return
