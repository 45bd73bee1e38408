"""Generation of a response, whole or as server-sent events; clients that disconnect stop it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from odesteer.serving.api.errors import APIError, ASCIIJSONResponse, as_api_error
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import ParsedRequest
from odesteer.serving.api.responses import ResponseFormat, receipt, usage
from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import GeneratedText, OutputChunk, OutputStream

T = TypeVar("T")

_EVENT_SCHEMA = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "JSON, or [DONE]."}},
    "required": ["data"],
}
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole answer or, with stream, a chunk in each event.",
        "content": {"text/event-stream": {"schema": _EVENT_SCHEMA}},
    }
}
"""What the OpenAPI document says of responses that may be streamed."""

_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def generate_response(
    request: Request,
    parsed: ParsedRequest,
    format: ResponseFormat,
    *,
    model: str,
    engine: Engine,
    metrics: Metrics,
    stream: bool,
    with_usage: bool,
) -> Response:
    """Generate the texts of a request; a client that disconnects cancels them."""
    streams = engine.submit(parsed.requests, at_end=not stream)
    metrics.prompt_tokens.inc(parsed.n_prompt)
    header = format.header(model, is_chunk=stream)
    chunks = _count_and_check(_merge(streams), metrics)
    try:
        if not stream:
            texts = await _unless_disconnected(request, _collect(chunks, len(streams)))
            return ASCIIJSONResponse(_whole_body(header, parsed, format, texts))
        # Errors before the first token can still set the status of the response.
        first = await _unless_disconnected(request, anext(chunks))
    except BaseException:
        _cancel(streams)
        raise
    return _EventStreamResponse(_events(header, parsed, format, first, chunks, with_usage), streams)


class _EventStreamResponse(StreamingResponse):
    """Server-sent events; a client that disconnects cancels the texts."""

    def __init__(self, events: AsyncIterator[bytes], streams: Sequence[OutputStream]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_STREAM_HEADERS)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _cancel(self._streams)


def _whole_body(
    header: dict[str, Any],
    parsed: ParsedRequest,
    format: ResponseFormat,
    texts: Sequence[GeneratedText],
) -> dict[str, Any]:
    return {
        **header,
        "choices": [format.choice(i, text) for i, text in enumerate(texts)],
        "usage": usage(parsed.n_prompt, sum(text.n_generated for text in texts)),
        "steering_receipt": receipt([text.steering for text in texts]),
    }


async def _events(
    header: dict[str, Any],
    parsed: ParsedRequest,
    format: ResponseFormat,
    first: tuple[int, OutputChunk],
    chunks: AsyncIterator[tuple[int, OutputChunk]],
    with_usage: bool,
) -> AsyncIterator[bytes]:
    texts = [GeneratedText() for _ in parsed.requests]
    try:
        for i in range(len(texts)):
            choice = format.first_chunk_choice(i)
            if choice is not None:
                yield _event({**header, "choices": [choice]})
        i, chunk = first
        n_running = len(texts)
        while True:
            body: dict[str, Any] = {
                **header,
                "choices": [format.chunk_choice(i, texts[i], chunk)],
            }
            texts[i].add(chunk)
            n_running -= chunk.finish_reason is not None
            if not n_running:
                body["steering_receipt"] = receipt([text.steering for text in texts])
            yield _event(body)
            if not n_running:
                break
            i, chunk = await anext(chunks)
        if with_usage:
            n_generated = sum(text.n_generated for text in texts)
            yield _event({**body, "choices": [], "usage": usage(parsed.n_prompt, n_generated)})
        yield b"data: [DONE]\n\n"
    except Exception as error:
        yield _event(as_api_error(error).body)


def _event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


async def _merge(streams: Sequence[OutputStream]) -> AsyncIterator[tuple[int, OutputChunk]]:
    """The chunks of several texts as they come, each with the index of its text."""
    if len(streams) == 1:
        async for chunk in streams[0]:
            yield 0, chunk
        return
    waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                i, chunk = waiting.pop(task), task.result()
                if chunk.finish_reason is None:
                    waiting[asyncio.ensure_future(anext(streams[i]))] = i
                yield i, chunk
    finally:
        for task in waiting:
            task.cancel()


async def _count_and_check(
    chunks: AsyncIterator[tuple[int, OutputChunk]], metrics: Metrics
) -> AsyncIterator[tuple[int, OutputChunk]]:
    """Pass chunks on, counted. Raises `APIError` for one with an error."""
    async for i, chunk in chunks:
        metrics.count(chunk)
        if chunk.error is not None:
            raise APIError(400 if chunk.is_client_error else 500, chunk.error)
        yield i, chunk


async def _collect(chunks: AsyncIterator[tuple[int, OutputChunk]], n: int) -> list[GeneratedText]:
    texts = [GeneratedText() for _ in range(n)]
    async for i, chunk in chunks:
        texts[i].add(chunk)
    return texts


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled if the client disconnects."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise APIError(499, "the client has gone.")
    finally:
        for task in (working, listening):
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _cancel(streams: Sequence[OutputStream]) -> None:
    for stream in streams:
        stream.cancel()
