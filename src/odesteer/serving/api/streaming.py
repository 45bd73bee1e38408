"""Answering requests for texts, whole or as they are written."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from odesteer.serving.api.errors import APIError, ASCIIJSONResponse, as_api_error
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import ParsedRequest
from odesteer.serving.api.responses import opening, receipt, usage
from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import OutputChunk, OutputStream, SteeringSummary, Token

T = TypeVar("T")

_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "JSON, or [DONE]."}},
    "required": ["data"],
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole answer or, with stream, a chunk in each event.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}
"""What the OpenAPI document says of answers that may be streamed."""

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass
class GeneratedText:
    """One text so far."""

    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    accounts: tuple[SteeringSummary, ...] = ()
    n_generated: int = 0

    def add(self, piece: OutputChunk) -> None:
        """Add a piece."""
        self.tokens += piece.tokens
        if piece.finish is not None:
            self.finish, self.accounts = piece.finish, piece.accounts
            self.n_generated = piece.n_generated

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ResponseFormat:
    """What answers of one kind look like.

    Attributes:
        kind, chunk: their ``object``, whole and in pieces.
        choice: a whole choice, from its number and text.
        change: a choice in a chunk, from its number, the text before, and what came.
        first: a choice in the chunk that comes before any text; None for no such chunk.
    """

    kind: str
    chunk: str
    choice: Callable[[int, GeneratedText], dict[str, Any]]
    change: Callable[[int, GeneratedText, OutputChunk], dict[str, Any] | None]
    first: Callable[[int], dict[str, Any]] | None = None


async def answer(
    request: Request,
    asked: ParsedRequest,
    form: ResponseFormat,
    *,
    model: str,
    engine: Engine,
    metrics: Metrics,
    stream: bool,
    with_usage: bool,
) -> Response:
    """Write the texts; who goes away before the end stops them."""
    streams = engine.submit(asked.jobs, at_end=not stream)
    metrics.prompt_tokens.inc(asked.n_prompt)
    head = opening(form.chunk if stream else form.kind, model)
    pieces = _checked(_together(streams), metrics)
    try:
        if not stream:
            texts = await _unless_gone(request, _all(pieces, len(streams)))
            return ASCIIJSONResponse(_whole(head, asked, form, texts))
        # Errors before the first token can still be told by the status of the answer.
        first = await _unless_gone(request, anext(pieces))
    except BaseException:
        _cancel(streams)
        raise
    return _EventStream(_events(head, asked, form, first, pieces, with_usage), streams)


class _EventStream(StreamingResponse):
    """Server-sent events; whoever stops listening stops the texts."""

    def __init__(self, events: AsyncIterator[bytes], streams: Sequence[OutputStream]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _cancel(self._streams)


def _whole(
    head: dict[str, Any], asked: ParsedRequest, form: ResponseFormat, texts: Sequence[GeneratedText]
) -> dict[str, Any]:
    return {
        **head,
        "choices": [form.choice(i, text) for i, text in enumerate(texts)],
        "usage": usage(asked.n_prompt, sum(text.n_generated for text in texts)),
        "steering_receipt": receipt([text.accounts for text in texts]),
    }


async def _events(
    head: dict[str, Any],
    asked: ParsedRequest,
    form: ResponseFormat,
    first: tuple[int, OutputChunk],
    pieces: AsyncIterator[tuple[int, OutputChunk]],
    with_usage: bool,
) -> AsyncIterator[bytes]:
    texts = [GeneratedText() for _ in asked.jobs]
    try:
        if form.first is not None:
            for i in range(len(texts)):
                yield _event({**head, "choices": [form.first(i)]})
        i, piece = first
        left = len(texts)
        while True:
            change = form.change(i, texts[i], piece)
            texts[i].add(piece)
            left -= piece.finish is not None
            chunk: dict[str, Any] = {**head, "choices": [change]}
            if not left:
                chunk["steering_receipt"] = receipt([text.accounts for text in texts])
            if change is not None:
                yield _event(chunk)
            if not left:
                break
            i, piece = await anext(pieces)
        if with_usage:
            told = usage(asked.n_prompt, sum(text.n_generated for text in texts))
            yield _event({**chunk, "choices": [], "usage": told})
        yield b"data: [DONE]\n\n"
    except Exception as error:
        yield _event(as_api_error(error).body)


def _event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


async def _together(streams: Sequence[OutputStream]) -> AsyncIterator[tuple[int, OutputChunk]]:
    """The pieces of several texts, each with the number of its text, as they come."""
    if len(streams) == 1:
        async for piece in streams[0]:
            yield 0, piece
        return
    waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                i, piece = waiting.pop(task), task.result()
                if piece.finish is None:
                    waiting[asyncio.ensure_future(anext(streams[i]))] = i
                yield i, piece
    finally:
        for task in waiting:
            task.cancel()


async def _checked(
    pieces: AsyncIterator[tuple[int, OutputChunk]], metrics: Metrics
) -> AsyncIterator[tuple[int, OutputChunk]]:
    """Count them, and raise `APIError` where one tells of an error."""
    async for i, piece in pieces:
        metrics.count(piece)
        if piece.error is not None:
            raise APIError(400 if piece.blames_request else 500, piece.error)
        yield i, piece


async def _all(pieces: AsyncIterator[tuple[int, OutputChunk]], n: int) -> list[GeneratedText]:
    texts = [GeneratedText() for _ in range(n)]
    async for i, piece in pieces:
        texts[i].add(piece)
    return texts


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What ``work`` gives; it is cancelled if the client goes away meanwhile."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise APIError(499, "the client has gone.")
    finally:
        for task in (working, listening):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _cancel(streams: Sequence[OutputStream]) -> None:
    for stream in streams:
        stream.cancel()
