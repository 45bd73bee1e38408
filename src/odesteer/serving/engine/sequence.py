"""One text while it is written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odesteer.serving.engine.detokenizer import IncrementalDetokenizer
from odesteer.serving.engine.output import (
    BarrierChange,
    FinishReason,
    OutputChunk,
    OutputStream,
    SteeringSummary,
    Token,
    TokenAlternative,
)
from odesteer.serving.engine.request import GenerationRequest
from odesteer.serving.engine.sampling import generator_of
from odesteer.serving.engine.steering import SequenceSteerer, SteeringEffect


@dataclass
class _SteeringTotals:
    """What one steerer has done so far."""

    tokens: int = 0
    known: int = 0
    before: float = 0.0
    after: float = 0.0
    is_open: bool | None = None

    def add(self, deed: SteeringEffect) -> None:
        if deed.is_open is not None:
            self.is_open = deed.is_open
        self.tokens += deed.acted
        if deed.ratio is not None:
            self.known += 1
            self.before += deed.ratio.before
            self.after += deed.ratio.after


@dataclass
class SequenceState:
    """One text while it is written: what acts on it, its tokens, and where its pieces go.

    Attributes:
        job: what was asked for.
        stream: takes the pieces.
        actings: the steerers at their sites, in order; None once a gate has ruled one out.
    """

    job: GenerationRequest
    stream: OutputStream
    actings: list[SequenceSteerer | None]
    tokenizer: Any
    stops: frozenset[int]
    device: torch.device
    last: int = field(default=0, init=False)
    n_generated: int = field(default=0, init=False)
    finished: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._asked = tuple(acting for acting in self.actings if acting is not None)
        self._tallies = [_SteeringTotals() for _ in self.actings]
        self._values: dict[str, BarrierChange] = {}
        self._text = IncrementalDetokenizer(self.tokenizer, self.job.prompt, self.job.sampling.stop)
        self._began = time.monotonic()
        self.draw = (self.job.sampling, generator_of(self.job.sampling, self.device))

    @property
    def seconds(self) -> float:
        """How long ago it was asked for."""
        return time.monotonic() - self._began

    def note(self, deed: SteeringEffect) -> None:
        """Note what a steerer did where the next token is chosen."""
        self._tallies[deed.order].add(deed)
        if deed.is_open is False:
            self.actings[deed.order] = None
        if deed.ratio is not None:
            self._values[self._asked[deed.order].name] = deed.ratio

    def take(
        self, token: int | None, figures: tuple[float, Sequence[TokenAlternative]] | None
    ) -> None:
        """Take the next token; None where there was none to choose."""
        values, self._values = self._values, {}
        if token is None:
            self._fail_for_nan()
            return
        self.last = token
        self.n_generated += 1
        if token in self.stops:
            self._finish([], "stop")
            return
        logprob, alternatives = figures or (None, ())
        told = Token("", logprob, tuple(alternatives), values)
        is_last = self.n_generated >= self.job.sampling.max_tokens
        tokens, stopped = self._text.push(token, told, is_last=is_last)
        if stopped:
            self._finish(tokens, "stop", whole=True)
        elif is_last:
            self._finish(tokens, "length")
        elif tokens:
            self.stream.put(OutputChunk(tuple(tokens)))

    def fail(self, reason: str, *, blames_request: bool = False) -> None:
        """End the text with an error."""
        self.finished = True
        accounts = self._accounts()
        self.stream.put(
            OutputChunk((), "error", accounts, self.n_generated, reason, blames_request)
        )

    def _fail_for_nan(self) -> None:
        if any(not acting.observes for acting in self._asked):
            reason = "the model's logits are not finite under this steering; steer less far."
            self.fail(reason, blames_request=True)
        else:
            self.fail("the model's logits are not finite; load it with another dtype.")

    def _finish(self, tokens: list[Token], finish: FinishReason, *, whole: bool = False) -> None:
        if not whole:
            rest, stopped = self._text.end()
            tokens = [*tokens, *rest]
            finish = "stop" if stopped else finish
        self.finished = True
        self.stream.put(OutputChunk(tuple(tokens), finish, self._accounts(), self.n_generated))

    def _accounts(self) -> tuple[SteeringSummary, ...]:
        return tuple(map(_account, self._asked, self._tallies))


def _account(acting: SequenceSteerer, tally: _SteeringTotals) -> SteeringSummary:
    site, n = acting.part.site, tally.known
    return SteeringSummary(
        name=acting.name,
        layer=site.layer,
        position=site.position,
        part=site.part,
        quantity=None if acting.observes else acting.amount.quantity,
        amount=None if acting.observes else float(acting.amount.value),
        digest=acting.digest,
        tokens=tally.tokens,
        mean_before=tally.before / n if n else None,
        mean_after=tally.after / n if n else None,
        is_open=tally.is_open,
    )


def log_probabilities(
    logits: Tensor, chosen: Sequence[int | None], rows: Sequence[SequenceState]
) -> list[tuple[float, Sequence[TokenAlternative]] | None]:
    """For rows that ask for them the figures of the chosen token and of its alternatives."""
    figures: list[tuple[float, Sequence[TokenAlternative]] | None] = [None] * len(rows)
    for i, (row, token) in enumerate(zip(rows, chosen, strict=True)):
        wanted = row.job.sampling.logprobs
        if wanted is None or token is None:
            continue
        logs = torch.log_softmax(logits[i], dim=-1)
        likeliest = logs.topk(min(wanted, len(logs)))
        texts = [row.tokenizer.decode([number]) for number in likeliest.indices.tolist()]
        figures[i] = (
            float(logs[token]),
            tuple(map(TokenAlternative, texts, likeliest.values.tolist())),
        )
    return figures
