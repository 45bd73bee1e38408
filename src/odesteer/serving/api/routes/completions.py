"""``POST /v1/completions``."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import asked
from odesteer.serving.api.request_schema import CompletionRequest
from odesteer.serving.api.responses import CompletionResponse, details, text_logprobs
from odesteer.serving.api.streaming import EVENTS, GeneratedText, ResponseFormat, answer
from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import OutputChunk
from odesteer.serving.settings import Settings

_USUAL = 16
"""Tokens of a text for which no number is said, as at OpenAI's."""


def router(engine: Engine, settings: Settings, metrics: Metrics) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post(
        "/v1/completions", response_model=CompletionResponse, responses=EVENTS, tags=["texts"]
    )
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue texts."""
        work = await asked(
            body,
            body.prompts,
            engine,
            settings,
            logprobs=body.logprobs,
            max_tokens=body.max_tokens,
            usual_tokens=_USUAL,
        )
        return await answer(
            request,
            work,
            _form(body.logprobs is not None, body.token_details),
            model=body.model,
            engine=engine,
            metrics=metrics,
            stream=body.stream,
            with_usage=body.stream_options.include_usage,
        )

    return routes


def _form(with_logprobs: bool, with_details: bool) -> ResponseFormat:
    def told(tokens: tuple[Any, ...], offset: int) -> dict[str, Any]:
        return {
            "logprobs": text_logprobs(tokens, offset) if with_logprobs else None,
            **({"odesteer": details(tokens)} if with_details else {}),
        }

    def choice(index: int, text: GeneratedText) -> dict[str, Any]:
        return {
            "index": index,
            "text": text.text,
            "finish_reason": text.finish,
            **told(text.tokens, 0),
        }

    def change(index: int, before: GeneratedText, piece: OutputChunk) -> dict[str, Any]:
        offset = len(before.text) if with_logprobs else 0
        return {
            "index": index,
            "text": piece.text,
            "finish_reason": piece.finish,
            **told(piece.tokens, offset),
        }

    return ResponseFormat("text_completion", "text_completion", choice, change)
