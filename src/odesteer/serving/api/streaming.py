"""Generation of a response, whole or as server-sent events; clients that disconnect stop it."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from odesteer.serving.api.errors import APIError, ASCIIJSONResponse, as_api_error
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import ParsedRequest
from odesteer.serving.api.request_schema import BaseCompletionRequest
from odesteer.serving.api.responses import ResponseFormat, receipt, usage
from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import GeneratedText, OutputChunk, OutputStream

T = TypeVar("T")

Chunks = AsyncIterator[tuple[int, OutputChunk]]
"""The chunks of several texts as they come, each with the index of its text."""

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


class AnswerWriter(ABC):
    """Writes the answer of one endpoint, whole or as server-sent events."""

    @abstractmethod
    def whole(self, parsed: ParsedRequest, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        """The body of a whole answer."""

    @abstractmethod
    def events(self, parsed: ParsedRequest, chunks: Chunks) -> AsyncIterator[bytes]:
        """The events of a streamed answer; ends with the last text."""


async def generate_response(
    request: Request,
    parsed: ParsedRequest,
    writer: AnswerWriter,
    *,
    engine: Engine,
    metrics: Metrics,
    stream: bool,
    ping_interval: float,
) -> Response:
    """Generate the texts of a request; a client that disconnects cancels them."""
    streams = engine.submit(parsed.requests, at_end=not stream)
    metrics.prompt_tokens.inc(parsed.n_prompt)
    merged = _MergedStreams(streams)
    chunks = _count_and_check(merged, metrics)
    try:
        if not stream:
            texts = await _unless_disconnected(request, _collect(chunks, len(streams)))
            return ASCIIJSONResponse(writer.whole(parsed, texts), headers=parsed.headers)
        # Errors before the first token can still set the status of the response.
        first = merged.begin(anext(chunks))
        await _unless_disconnected(request, asyncio.wait((first,), timeout=ping_interval))
        if first.done():
            first.result()
    except BaseException:
        merged.cancel()
        raise
    events = _with_pings(writer.events(parsed, _after(first, chunks)), ping_interval)
    return _EventStreamResponse(events, merged, parsed.headers)


class _EventStreamResponse(StreamingResponse):
    """Server-sent events; a client that disconnects cancels the texts."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        merged: "_MergedStreams",
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={**_STREAM_HEADERS, **headers}
        )
        self._events = events
        self._merged = merged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._merged.cancel()
            await self._events.aclose()


class CompletionsWriter(AnswerWriter):
    """Answers of chat completions and completions."""

    def __init__(self, format: ResponseFormat, body: BaseCompletionRequest) -> None:
        self._format = format
        self._with_usage = body.stream_options.include_usage
        self._header = format.header(body.model, is_chunk=body.stream)

    def whole(self, parsed: ParsedRequest, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        return {
            **self._header,
            "choices": [self._format.choice(i, text) for i, text in enumerate(texts)],
            "usage": usage(parsed.n_prompt, sum(text.n_generated for text in texts)),
            "steering_receipt": receipt([text.steering for text in texts]),
        }

    async def events(self, parsed: ParsedRequest, chunks: Chunks) -> AsyncIterator[bytes]:
        format, header = self._format, self._header
        texts = [GeneratedText() for _ in parsed.requests]
        try:
            for i in range(len(texts)):
                choice = format.first_chunk_choice(i)
                if choice is not None:
                    yield event({**header, "choices": [choice]})
            n_running = len(texts)
            body: dict[str, Any] = {}
            async for i, chunk in chunks:
                body = {**header, "choices": [format.chunk_choice(i, texts[i], chunk)]}
                texts[i].add(chunk)
                n_running -= chunk.finish_reason is not None
                if not n_running:
                    body["steering_receipt"] = receipt([text.steering for text in texts])
                yield event(body)
            if self._with_usage:
                n_generated = sum(text.n_generated for text in texts)
                yield event({**body, "choices": [], "usage": usage(parsed.n_prompt, n_generated)})
            yield b"data: [DONE]\n\n"
        except Exception as error:
            yield event(as_api_error(error).body)


async def _after(first: "asyncio.Future[tuple[int, OutputChunk]]", rest: Chunks) -> Chunks:
    yield await first
    async for each in rest:
        yield each


async def _with_pings(events: AsyncIterator[bytes], interval: float) -> AsyncGenerator[bytes, None]:
    """Events, and a comment after each interval without any: proxies cut silent connections."""
    waiting: asyncio.Future[bytes] | None = None
    try:
        while True:
            waiting = asyncio.ensure_future(anext(events))
            while not (await asyncio.wait((waiting,), timeout=interval))[0]:
                yield b": ping\n\n"
            try:
                yield waiting.result()
            except StopAsyncIteration:
                return
    finally:
        if waiting is not None:
            waiting.cancel()


def event(content: Any, name: str | None = None) -> bytes:
    """A server-sent event with JSON as its data."""
    kind = b"" if name is None else f"event: {name}\n".encode()
    return kind + b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


class _MergedStreams:
    """The chunks of several texts as they come, each with the index of its text.

    Waiting for a chunk is a task of its own, which a reader that is gone would leave behind:
    `cancel` ends those tasks, and the texts.
    """

    def __init__(self, streams: Sequence[OutputStream]) -> None:
        self._streams = streams
        self._waiting: set[asyncio.Future[Any]] = set()

    def begin(self, work: Awaitable[T]) -> "asyncio.Future[T]":
        """Start a task that `cancel` ends."""
        task = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    async def __aiter__(self) -> AsyncIterator[tuple[int, OutputChunk]]:
        if len(self._streams) == 1:
            async for chunk in self._streams[0]:
                yield 0, chunk
            return
        waiting = {self.begin(anext(stream)): i for i, stream in enumerate(self._streams)}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                i, chunk = waiting.pop(task), task.result()
                if chunk.finish_reason is None:
                    waiting[self.begin(anext(self._streams[i]))] = i
                yield i, chunk

    def cancel(self) -> None:
        """Stop generating the texts, and waiting for them."""
        for stream in self._streams:
            stream.cancel()
        for task in list(self._waiting):
            task.cancel()


async def _count_and_check(
    chunks: AsyncIterable[tuple[int, OutputChunk]], metrics: Metrics
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
