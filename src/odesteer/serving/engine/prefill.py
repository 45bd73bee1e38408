"""Prefill: the prompts of new sequences on their way through the model, some columns at a time."""

from collections.abc import Hashable, Iterable, Sequence

from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.serving.engine.forward import ModelRunner
from odesteer.serving.engine.kv_cache import BatchCache
from odesteer.serving.engine.sampling import token_logprobs
from odesteer.serving.engine.sequence import SequenceState
from odesteer.serving.engine.steering import BatchSteering, SteeringEffect

Prefilled = tuple[list[SequenceState], BatchCache, Tensor, list[tuple[int, SteeringEffect]]]


class Prefill:
    """Sequences whose prompts are computed together; equal prompts with equal steering once.

    Args:
        share: whether equal prompts are computed once; their rows are copied then.

    Attributes:
        sequences: all of them.
        n_rows: number of prompts that are computed.
        width: number of columns, the tokens of the longest prompt.
        n_done: number of columns that are computed.
        is_scored: whether tokens of the prompts get log-probabilities.
    """

    def __init__(
        self,
        lm: SteeredModel,
        runner: ModelRunner,
        sequences: Sequence[SequenceState],
        *,
        share: bool = True,
    ) -> None:
        self._runner = runner
        self.sequences = list(sequences)
        self._groups = equal_prompts(sequences) if share else [[each] for each in sequences]
        rows = [group[0] for group in self._groups]
        self._lengths = [len(row.tokens) for row in rows]
        self.width = max(self._lengths)
        self.n_rows = len(rows)
        self.n_done = 0
        self._inputs = runner.prompts([row.tokens for row in rows])
        self._pads = [self.width - length for length in self._lengths]
        ends = [pad + row.request.n_prompt for pad, row in zip(self._pads, rows, strict=True)]
        self.is_scored = any(each.request.is_scored for each in sequences)
        # Of scored prompts, effects count from where the first scored token is chosen.
        self._first_effects = [
            end - 1 if row.request.is_scored else self.width - 1
            for end, row in zip(ends, rows, strict=True)
        ]
        self._steering = BatchSteering(lm, [row.steerers for row in rows], ends)
        self._cache: object = None
        for each in sequences:
            each.begin_prompt()
        self._logits: Tensor | None = None

    @property
    def is_done(self) -> bool:
        return self.n_done == self.width

    def n_columns(self, n_tokens: int) -> int:
        """How many columns hold so many tokens; at least one."""
        return max(n_tokens // self.n_rows, 1)

    @property
    def is_cancelled(self) -> bool:
        return all(each.finished for each in self.sequences)

    def run(self, n_columns: int) -> None:
        """Compute up to ``n_columns`` more columns. An exception leaves it unusable."""
        columns = range(self.n_done, min(self.n_done + n_columns, self.width))
        with self._steering.active():
            logits, self._cache = self._runner.prefill(
                self._inputs, columns, self._cache, all_logits=self.is_scored
            )
        if self.is_scored:
            self._score(logits, columns)
        self._logits = logits[:, -1]
        self.n_done = columns.stop

    def finish(
        self,
    ) -> Prefilled:
        """The sequences, their cache, the logits after their prompts and what steering did.

        Effects have the index of a sequence, as rows of the cache and of the logits do.
        """
        assert self._logits is not None
        rows = [row for row, group in enumerate(self._groups) for _ in group]
        sequences = [each for group in self._groups for each in group]
        members: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            members.setdefault(row, []).append(i)
        effects = [
            (i, effect)
            for row, effect in self._steering.take_effects(self._first_effects)
            for i in members[row]
        ]
        cache = BatchCache(self._lengths, self._cache, self._inputs["attention_mask"])
        logits = self._logits
        if len(rows) > self.n_rows:
            cache, logits = cache.select(rows), logits[rows]
        return sequences, cache, logits, effects

    def _score(self, logits: Tensor, columns: range) -> None:
        """Give sequences the log-probabilities of the prompt tokens that follow these columns."""
        for row, group in enumerate(self._groups):
            if not group[0].request.is_scored:
                continue
            tokens, pad = group[0].tokens, self._pads[row]
            n_alternatives = max(each.request.sampling.logprobs or 0 for each in group)
            for i, column in enumerate(columns):
                following = column - pad + 1
                if 0 < following < len(tokens):
                    found = token_logprobs(
                        logits[row, i], tokens[following], n_alternatives, group[0].tokenizer
                    )
                    for each in group:
                        each.add_prompt_logprobs(found)


def equal_prompts(sequences: Iterable[SequenceState]) -> list[list[SequenceState]]:
    """Sequences in groups whose prompts are computed alike."""
    groups: dict[Hashable, list[SequenceState]] = {}
    for each in sequences:
        groups.setdefault(each.prefill_key, []).append(each)
    return list(groups.values())
