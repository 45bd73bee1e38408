"""The way of a text from the thread that writes it to the coroutine that reads it."""

import asyncio
from collections.abc import AsyncIterator

from odesteer.serving.progress import Piece


class Stream(AsyncIterator[Piece]):
    """The pieces of one text, as they come; it ends after one that has a ``finish``.

    Made on the event loop that reads it. Pieces are put by one other thread, which wakes the loop
    for each of them, or ``at_end`` once for all.
    """

    def __init__(self, *, at_end: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._at_end = at_end
        self._held: list[Piece] = []
        self._ended = False
        self.cancelled = False

    def put(self, piece: Piece) -> None:
        """Hand a piece over."""
        self._held.append(piece)
        if piece.finish is not None or not self._at_end:
            held, self._held = self._held, []
            try:
                self._loop.call_soon_threadsafe(self._take, held)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self.cancelled = True

    def _take(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def cancel(self) -> None:
        """Let nothing more be written. Harmless when the text has ended."""
        self.cancelled = True

    async def __anext__(self) -> Piece:
        if self._ended:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        self._ended = piece.finish is not None
        return piece
