"""What the engine hands out while it writes a text."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class BarrierChange:
    """Log-density ratio, nats, of the activation that a token was chosen from."""

    before: float
    after: float


@dataclass(frozen=True)
class TokenAlternative:
    """A token that could have been chosen.

    Attributes:
        text: of this token alone.
        logprob: as that of the token in its place.
    """

    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """One written token.

    Attributes:
        text: the text that it completes; those of all tokens add up to the whole.
        logprob: logarithm of its probability under the steered model, before temperature and
            top_p; None where it was not asked for.
        alternatives: the likeliest tokens in its place, likeliest first.
        values: by the name of a steerer with a barrier, the ratio before and after it moved.
    """

    text: str
    logprob: float | None = None
    alternatives: tuple[TokenAlternative, ...] = ()
    values: Mapping[str, BarrierChange] = field(default_factory=dict)


@dataclass(frozen=True)
class SteeringSummary:
    """What one steerer did to one text, at one site.

    Attributes:
        name: of the steerer.
        layer, position, part: its site.
        quantity, amount: how much it was to move; None where it only observed.
        digest: sha256 of the steerer.
        tokens: how many of the generated tokens it acted on.
        mean_before, mean_after: mean log-density ratio, nats, over these; None without a barrier.
        is_open: what its gate decided about the prompt; None without a gate.
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
    is_open: bool | None


@dataclass(frozen=True)
class OutputChunk:
    """Some more of a text.

    Attributes:
        tokens: the tokens that came.
        finish: why the text ends here; None if it goes on.
        accounts: with the last piece, what each steerer did.
        n_generated: with the last piece, number of tokens that were generated, the one that ended
            the text included.
        error: the reason, if finish is `error`.
        blames_request: whether what was asked for is the cause of it.
    """

    tokens: tuple[Token, ...]
    finish: FinishReason | None = None
    accounts: tuple[SteeringSummary, ...] = ()
    n_generated: int = 0
    error: str | None = None
    blames_request: bool = False

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


class OutputStream(AsyncIterator[OutputChunk]):
    """The pieces of one text, as they come; it ends after one that has a ``finish``.

    Made on the event loop that reads it. Pieces are put by one other thread, which wakes the loop
    for each of them, or ``at_end`` once for all.
    """

    def __init__(self, *, at_end: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[OutputChunk] = asyncio.Queue()
        self._at_end = at_end
        self._held: list[OutputChunk] = []
        self._ended = False
        self.cancelled = False

    def put(self, piece: OutputChunk) -> None:
        """Hand a piece over."""
        self._held.append(piece)
        if piece.finish is not None or not self._at_end:
            held, self._held = self._held, []
            try:
                self._loop.call_soon_threadsafe(self._take, held)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self.cancelled = True

    def _take(self, pieces: list[OutputChunk]) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def cancel(self) -> None:
        """Let nothing more be written. Harmless when the text has ended."""
        self.cancelled = True

    async def __anext__(self) -> OutputChunk:
        if self._ended:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        self._ended = piece.finish is not None
        return piece
