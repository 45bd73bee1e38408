"""Routes: ``POST /v1/chat/completions``, ``/v1/completions`` and ``/v1/responses``."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from odesteer.serving.api.errors import APIError
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import PromptOptions, parse_request
from odesteer.serving.api.request_schema import (
    BaseCompletionRequest,
    ChatCompletionRequest,
    CompletionRequest,
    ResponsesRequest,
    ignored_fields,
)
from odesteer.serving.api.response_schema import (
    ChatCompletionResponse,
    CompletionResponse,
    ResponseObject,
)
from odesteer.serving.api.responses import ChatFormat, CompletionFormat
from odesteer.serving.api.responses_api import ResponsesWriter
from odesteer.serving.api.streaming import (
    STREAM_RESPONSES,
    AnswerWriter,
    CompletionsWriter,
    generate_response,
)
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
        writer: AnswerWriter,
        **options: Any,
    ) -> Response:
        if "json" not in request.headers.get("content-type", ""):
            raise APIError(400, "the body must be JSON, with the content type application/json.")
        ignored = ignored_fields(await request.json(), strict=settings.strict)
        asked = PromptOptions(ignored=ignored, **options)
        return await generate_response(
            request,
            await parse_request(body, prompts, engine, settings, asked),
            writer,
            engine=engine,
            metrics=metrics,
            stream=body.stream,
            ping_interval=settings.ping_interval,
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
            CompletionsWriter(ChatFormat(body.logprobs, body.token_details), body),
            logprobs=body.top_logprobs if body.logprobs else None,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            max_tokens_field=(
                "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
            ),
            template=body.chat_template_kwargs,
            tools=body.tools if body.tool_choice == "auto" else (),
        )

    @routes.post("/v1/completions", response_model=CompletionResponse, responses=STREAM_RESPONSES)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue texts."""
        return await respond(
            request,
            body,
            body.prompts,
            CompletionsWriter(
                CompletionFormat(body.logprobs is not None, body.token_details), body
            ),
            logprobs=body.logprobs,
            max_tokens=body.max_tokens,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
            echo=body.echo,
            prompt_end=body.prompt_end or request.headers.get("x-odesteer-prompt-end"),
        )

    @routes.post("/v1/responses", response_model=ResponseObject, responses=STREAM_RESPONSES)
    async def responses(request: Request, body: ResponsesRequest) -> Response:
        """Answer a chat, in the form of OpenAI's Responses API; nothing is stored."""
        return await respond(
            request,
            body,
            [body.messages],
            ResponsesWriter(body),
            max_tokens=body.max_output_tokens,
            max_tokens_field="max_output_tokens",
            template=body.chat_template_kwargs,
        )

    return routes
