"""Routes: ``POST /v1/chat/completions`` and ``POST /v1/completions``."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import parse_request
from odesteer.serving.api.request_schema import (
    BaseCompletionRequest,
    ChatCompletionRequest,
    CompletionRequest,
)
from odesteer.serving.api.response_schema import ChatCompletionResponse, CompletionResponse
from odesteer.serving.api.responses import ChatFormat, CompletionFormat, ResponseFormat
from odesteer.serving.api.streaming import STREAM_RESPONSES, generate_response
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings

_DEFAULT_MAX_TOKENS = 16
"""Of a completion, as in OpenAI's API."""


def router(engine: Engine, settings: Settings, metrics: Metrics) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["texts"])

    async def respond(
        request: Request,
        body: BaseCompletionRequest,
        prompts: Sequence[Any],
        format: ResponseFormat,
        **limits: int | None,
    ) -> Response:
        return await generate_response(
            request,
            await parse_request(body, prompts, engine, settings, **limits),
            format,
            model=body.model,
            engine=engine,
            metrics=metrics,
            stream=body.stream,
            with_usage=body.stream_options.include_usage,
        )

    @routes.post(
        "/v1/chat/completions", response_model=ChatCompletionResponse, responses=STREAM_RESPONSES
    )
    async def chat_completions(request: Request, body: ChatCompletionRequest) -> Response:
        """Answer a chat."""
        return await respond(
            request,
            body,
            [[message.message for message in body.messages]],
            ChatFormat(body.logprobs, body.token_details),
            logprobs=body.top_logprobs if body.logprobs else None,
            max_tokens=body.max_completion_tokens or body.max_tokens,
        )

    @routes.post("/v1/completions", response_model=CompletionResponse, responses=STREAM_RESPONSES)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue texts."""
        return await respond(
            request,
            body,
            body.prompts,
            CompletionFormat(body.logprobs is not None, body.token_details),
            logprobs=body.logprobs,
            max_tokens=body.max_tokens,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
        )

    return routes
