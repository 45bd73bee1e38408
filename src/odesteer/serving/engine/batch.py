"""The texts that are being written together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.models import SteeredModel
from odesteer.serving.engine.forward import KVCache, ModelRunner
from odesteer.serving.engine.sampling import choose
from odesteer.serving.engine.sequence import SequenceState, log_probabilities
from odesteer.serving.engine.steering import BatchSteering

_PREFILL = 8192
"""Tokens of prompts, padding included, that pass through the model at a time."""


class Batch:
    """Rows that share forward passes: they join with their prompts and leave when they end.

    Models whose memory of several rows cannot be taken apart (recurrent ones) are run a batch after
    the other: rows join when it is empty, and those that end wait for the others.
    """

    def __init__(self, lm: SteeredModel, pad: int) -> None:
        self._lm = lm
        self._pad = pad
        self._forward = ModelRunner(lm, pad)
        self._columns: KVCache | None = None
        self._steering: BatchSteering | None = None
        self.rows: list[SequenceState] = []
        with torch.no_grad():
            self.merges = self._forward.prompts([[pad, pad], [pad]])[1].can_merge

    @property
    def is_open(self) -> bool:
        """Whether rows can join now."""
        return self.merges or not self.rows

    def prefixes(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many of these prompts, from the first, pass through the model at a time."""
        width = 0
        for n, prompt in enumerate(prompts):
            width = max(width, len(prompt))
            if n and width * (n + 1) > _PREFILL:
                return n
        return len(prompts)

    @torch.no_grad()
    def join(self, rows: Sequence[SequenceState]) -> None:
        """Pass the prompts of new rows through the model, and write their first tokens."""
        prompts = [row.job.prompt for row in rows]
        steering = BatchSteering(self._lm, [row.actings for row in rows], max(map(len, prompts)))
        with steering.acting():
            logits, columns = self._forward.prompts(prompts)
        _write(rows, logits, steering, columns)
        # Only now, so that a failure above leaves those alone that were here before.
        self._columns = columns if self._columns is None else self._columns.join(columns)
        self._steering = None
        self.rows += rows

    @torch.no_grad()
    def step(self) -> None:
        """Write one more token of each row."""
        self._drop_finished()
        if self._columns is None:
            return
        if self._steering is None:
            self._steering = BatchSteering(
                self._lm, [() if row.finished else row.actings for row in self.rows]
            )
        tokens = [self._pad if row.finished else row.last for row in self.rows]
        with self._steering.acting():
            logits = self._forward.tokens(tokens, self._columns)
        _write(self.rows, logits, self._steering, self._columns)
        self._drop_finished()

    def clear(self) -> None:
        """Forget all rows."""
        self.rows, self._columns, self._steering = [], None, None

    def _drop_finished(self) -> None:
        left = [i for i, row in enumerate(self.rows) if not row.finished]
        if not left:
            self.clear()
        elif self.merges and len(left) < len(self.rows) and self._columns is not None:
            self._columns.keep(left)
            self.rows = [self.rows[i] for i in left]
            self._steering = None


def _write(
    rows: Sequence[SequenceState], logits: Tensor, steering: BatchSteering, columns: KVCache
) -> None:
    """Let each row that goes on take its next token."""
    for i, deed in steering.take_deeds(columns.width - 1):
        rows[i].note(deed)
    going = [i for i, row in enumerate(rows) if not row.finished]
    writing = [rows[i] for i in going]
    logits = logits if len(going) == len(rows) else logits[going]
    chosen = choose(logits, [row.draw for row in writing])
    figures = log_probabilities(logits, chosen, writing)
    for row, token, own in zip(writing, chosen, figures, strict=True):
        row.take(token, own)
