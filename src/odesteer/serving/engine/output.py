"""Output of the engine: tokens, summaries of steering, and the stream that carries them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "error"]

FAILED = "the server failed on this request; its log tells more."
"""What clients are told of an exception."""


@dataclass(frozen=True)
class BarrierChange:
    """Log-density ratio h (nats) of an activation, before and after it was steered."""

    before: float
    after: float


@dataclass(frozen=True)
class TokenAlternative:
    """A token that could have been chosen.

    Attributes:
        text: of this token alone.
        logprob: its log-probability, as in `GeneratedToken`.
    """

    text: str
    logprob: float


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token.

    Attributes:
        text: the text that it completes; those of all tokens add up to the whole.
        logprob: its log-probability under the steered model, before temperature and top_p; None
            where it was not asked for.
        alternatives: the likeliest tokens in its place, likeliest first.
        barriers: by steerer with a barrier, h at the activation that the token was chosen from.
        is_prompt: whether it is a token of the prompt, sent back.
    """

    text: str
    logprob: float | None = None
    alternatives: tuple[TokenAlternative, ...] = ()
    barriers: Mapping[str, BarrierChange] = field(default_factory=dict)
    is_prompt: bool = False


@dataclass(frozen=True)
class SteeringSummary:
    """What one steerer did to one text, at one site; an entry of the steering receipt.

    Attributes:
        name: of the steerer.
        layer, position, part: its site.
        quantity, amount: how much it was to move; None where it only observed.
        digest: sha256 of the steerer.
        tokens: on how many of the generated tokens it acted.
        mean_before, mean_after: mean log-density ratio (nats) over these; None without a barrier.
        gate_open: what its gate decided about the prompt; None without a gate.
    """

    name: str
    layer: int
    position: str
    part: str
    quantity: str | None
    amount: float | None
    digest: str
    tokens: int
    mean_before: float | None
    mean_after: float | None
    gate_open: bool | None


@dataclass(frozen=True)
class OutputChunk:
    """The next tokens of a text.

    Attributes:
        tokens: the new tokens.
        finish_reason: why the text ends here; None if it goes on.
        steering: with the last chunk, what each steerer did.
        n_generated: with the last chunk, number of tokens that were generated, including the one
            that ended the text.
        error: the reason, if ``finish_reason`` is `error`.
        is_client_error: whether the request caused the error.
    """

    tokens: tuple[GeneratedToken, ...]
    finish_reason: FinishReason | None = None
    steering: tuple[SteeringSummary, ...] = ()
    n_generated: int = 0
    error: str | None = None
    is_client_error: bool = False

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass
class GeneratedText:
    """The chunks of one text, added up."""

    tokens: tuple[GeneratedToken, ...] = ()
    finish_reason: str | None = None
    steering: tuple[SteeringSummary, ...] = ()
    n_generated: int = 0

    def add(self, chunk: OutputChunk) -> None:
        """Add the next chunk."""
        self.tokens += chunk.tokens
        if chunk.finish_reason is not None:
            self.finish_reason, self.steering = chunk.finish_reason, chunk.steering
            self.n_generated = chunk.n_generated

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


class OutputStream(AsyncIterator[OutputChunk]):
    """The chunks of one text; it ends after the one with a ``finish_reason``.

    Created on the event loop that reads it. The scheduler's thread puts chunks, and wakes the loop
    for each of them or, with ``at_end``, once for all.
    """

    def __init__(self, *, at_end: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[OutputChunk] = asyncio.Queue()
        self._at_end = at_end
        self._pending: list[OutputChunk] = []
        self._ended = False
        self.cancelled = False

    def put(self, chunk: OutputChunk) -> None:
        """Hand a chunk to the reader. Called by the scheduler's thread."""
        self._pending.append(chunk)
        if chunk.finish_reason is not None or not self._at_end:
            chunks, self._pending = self._pending, []
            try:
                self._loop.call_soon_threadsafe(self._enqueue, chunks)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self.cancelled = True

    def _enqueue(self, chunks: list[OutputChunk]) -> None:
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    def cancel(self) -> None:
        """Stop generating this text. Harmless when it has ended."""
        self.cancelled = True

    async def __anext__(self) -> OutputChunk:
        if self._ended:
            raise StopAsyncIteration
        chunk = await self._chunks.get()
        self._ended = chunk.finish_reason is not None
        return chunk
