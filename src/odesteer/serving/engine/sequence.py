"""State of one sequence: its request, its tokens so far, and what steering did to it."""

import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from odesteer.models.generation.streaming import Detokenizer
from odesteer.serving.engine.detokenizer import IncrementalDetokenizer
from odesteer.serving.engine.grammar import JsonMatcher
from odesteer.serving.engine.output import (
    FAILED,
    BarrierChange,
    FinishReason,
    GeneratedToken,
    OutputChunk,
    OutputStream,
    SteeringSummary,
)
from odesteer.serving.engine.request import GenerationRequest
from odesteer.serving.engine.sampling import RowSampler, TokenLogprobs
from odesteer.serving.engine.steering import ReadTokens, SequenceSteerer, SteeringEffect


@dataclass
class _EffectTotals:
    """What one steerer has done to the sequence so far; ``measured`` counts the sums of h."""

    tokens: int = 0
    measured: int = 0
    before: float = 0.0
    after: float = 0.0
    gate_open: bool | None = None

    def add(self, effect: SteeringEffect) -> None:
        if effect.gate_open is not None:
            self.gate_open = effect.gate_open
        self.tokens += effect.acted
        if effect.barrier is not None:
            self.measured += 1
            self.before += effect.barrier.before
            self.after += effect.barrier.after


@dataclass
class SequenceState:
    """One sequence, waiting or running.

    Attributes:
        request: what is to be generated.
        stream: takes the output.
        steerers: those that act on it, in order; None once a gate has closed.
        eos_tokens: ids of the tokens that end a text.
        grammar: of the text; None for any text.
        tokens: of the prompt and of the text so far.
        finished: whether it has ended or was cancelled.
        sampler: how it samples.
    """

    request: GenerationRequest
    stream: OutputStream
    steerers: list[SequenceSteerer | None]
    tokenizer: Any
    eos_tokens: frozenset[int]
    device: torch.device
    grammar: JsonMatcher | None = None
    tokens: list[int] = field(init=False)
    finished: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._requested = tuple(steerer for steerer in self.steerers if steerer is not None)
        self._totals = [_EffectTotals() for _ in self.steerers]
        self._barriers: dict[str, BarrierChange] = {}
        sampling = self.request.sampling
        self._detokenizer = IncrementalDetokenizer(
            self.tokenizer, self.request.prompt, sampling.stop
        )
        self._created = time.monotonic()
        self._prompt_logprobs: list[TokenLogprobs] = []
        self.tokens = list(self.request.prompt)
        self.sampler = RowSampler(sampling, self.request.prompt, self.device, self.grammar)

    @property
    def age(self) -> float:
        """Seconds since it was submitted."""
        return time.monotonic() - self._created

    @property
    def last_token(self) -> int:
        """The token that the next pass is given."""
        return self.tokens[-1]

    @property
    def n_generated(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - len(self.request.prompt)

    def read_tokens(self, width: int) -> ReadTokens:
        """The tokens in a cache of so many columns: all but the last one."""
        n_prompt = self.request.n_prompt
        return ReadTokens.of(self.tokens[:n_prompt], self.tokens[n_prompt:-1], width)

    @property
    def prefill_key(self) -> Hashable:
        """Equal for sequences of which the prompts are computed alike."""
        steering = [
            None if each is None else (id(each.member), str(each.amount), each.observe)
            for each in self.steerers
        ]
        its = self.request
        return tuple(self.tokens), tuple(steering), its.n_prompt, its.is_scored

    def begin_prompt(self) -> None:
        """Forget the log-probabilities of a prompt that is computed again."""
        self._prompt_logprobs = []

    def add_prompt_logprobs(self, logprobs: TokenLogprobs) -> None:
        """Note the log-probabilities of the next token of the prompt, from the second on."""
        self._prompt_logprobs.append(logprobs)

    def end_prompt(self) -> None:
        """Send the tokens of the prompt if they were asked for; end the text if that is all."""
        if self.n_generated:  # it is computed again
            return
        if self.request.echo:
            self.stream.put(OutputChunk(tuple(self._echoed())))
        if not self.request.sampling.max_tokens:
            self._finish([], "length", is_complete=True)

    def _echoed(self) -> Iterable[GeneratedToken]:
        detokenizer = Detokenizer(self.tokenizer, [])
        last = len(self.request.prompt) - 1
        for i, token_id in enumerate(self.request.prompt):
            text = detokenizer.push(token_id) + (detokenizer.flush() if i == last else "")
            logprob, alternatives = None, ()
            if 0 < i <= len(self._prompt_logprobs):
                logprob, alternatives = self._prompt_logprobs[i - 1]  # type: ignore[assignment]
            yield GeneratedToken(text, logprob, tuple(alternatives), is_prompt=True)

    def record_effect(self, effect: SteeringEffect) -> None:
        """Record what a steerer did where the next token is chosen."""
        self._totals[effect.index].add(effect)
        if effect.gate_open is False:
            self.steerers[effect.index] = None
        if effect.barrier is not None:
            self._barriers[self._requested[effect.index].name] = effect.barrier

    def append_token(self, token_id: int | None, logprobs: TokenLogprobs | None) -> None:
        """Append the next token, or end the text; None where logits were not finite."""
        barriers, self._barriers = self._barriers, {}
        if token_id is None:
            self._fail_for_logits()
            return
        self.tokens.append(token_id)
        if token_id in self.eos_tokens:
            last = []
            if self.request.is_scored and logprobs is not None:
                # Clients that score a prompt count on one token behind it, whatever it is.
                last = [GeneratedToken("", logprobs[0], tuple(logprobs[1]), barriers)]
            self._finish(last, "stop")
            return
        self.sampler.append(token_id)
        logprob, alternatives = logprobs or (None, ())
        token = GeneratedToken("", logprob, tuple(alternatives), barriers)
        is_complete = self.sampler.is_complete
        is_last = is_complete or self.n_generated >= self.request.sampling.max_tokens
        tokens, stopped = self._detokenizer.push(token_id, token, is_last=is_last)
        if stopped:
            self._finish(tokens, "stop", is_complete=True)
        elif is_last:
            self._finish(tokens, "stop" if is_complete else "length")
        elif tokens:
            self.stream.put(OutputChunk(tuple(tokens)))

    def fail(self, reason: str, *, is_client_error: bool = False) -> None:
        """End the text with an error."""
        self.finished = True
        self.stream.put(
            OutputChunk((), "error", self._summaries(), self.n_generated, reason, is_client_error)
        )

    def _fail_for_logits(self) -> None:
        if any(not steerer.observe for steerer in self._requested):
            reason = "the model's logits are not finite under this steering; steer less far."
            self.fail(reason, is_client_error=True)
        else:
            self.fail("the model's logits are not finite; load it with another dtype.")

    def _finish(
        self, tokens: list[GeneratedToken], reason: FinishReason, *, is_complete: bool = False
    ) -> None:
        if not is_complete:
            rest, stopped = self._detokenizer.end()
            tokens = [*tokens, *rest]
            reason = "stop" if stopped else reason
        self.finished = True
        self.stream.put(OutputChunk(tuple(tokens), reason, self._summaries(), self.n_generated))

    def _summaries(self) -> tuple[SteeringSummary, ...]:
        return tuple(map(_summary, self._requested, self._totals))


def _summary(steerer: SequenceSteerer, totals: _EffectTotals) -> SteeringSummary:
    site, n = steerer.member.site, totals.measured
    return SteeringSummary(
        name=steerer.name,
        layer=site.layer,
        position=site.position,
        part=site.part,
        quantity=None if steerer.observe else steerer.amount.quantity,
        amount=None if steerer.observe else float(steerer.amount.value),
        digest=steerer.digest,
        tokens=totals.tokens,
        mean_before=totals.before / n if n else None,
        mean_after=totals.after / n if n else None,
        gate_open=totals.gate_open,
    )


def fail_all(sequences: Iterable[SequenceState], reason: str = FAILED) -> None:
    """End those of the sequences that have not ended with an error."""
    for sequence in sequences:
        if not sequence.finished:
            sequence.fail(reason)
