"""``POST /v1/chat/completions``."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.request_parsing import asked
from odesteer.serving.api.request_schema import ChatCompletionRequest
from odesteer.serving.api.responses import ChatResponse, chat_logprobs, details
from odesteer.serving.api.streaming import EVENTS, GeneratedText, ResponseFormat, answer
from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import OutputChunk
from odesteer.serving.settings import Settings


def router(engine: Engine, settings: Settings, metrics: Metrics) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post(
        "/v1/chat/completions", response_model=ChatResponse, responses=EVENTS, tags=["texts"]
    )
    async def chat_completions(request: Request, body: ChatCompletionRequest) -> Response:
        """ASCIIJSONResponse a chat."""
        work = await asked(
            body,
            [[message.message for message in body.messages]],
            engine,
            settings,
            logprobs=body.top_logprobs if body.logprobs else None,
            max_tokens=body.max_completion_tokens or body.max_tokens,
        )
        return await answer(
            request,
            work,
            _form(body.logprobs, body.token_details),
            model=body.model,
            engine=engine,
            metrics=metrics,
            stream=body.stream,
            with_usage=body.stream_options.include_usage,
        )

    return routes


def _form(with_logprobs: bool, with_details: bool) -> ResponseFormat:
    def told(tokens: tuple[Any, ...]) -> dict[str, Any]:
        return {
            "logprobs": chat_logprobs(tokens) if with_logprobs else None,
            **({"odesteer": details(tokens)} if with_details else {}),
        }

    def choice(index: int, text: GeneratedText) -> dict[str, Any]:
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "finish_reason": text.finish,
            **told(text.tokens),
        }

    def change(index: int, before: GeneratedText, piece: OutputChunk) -> dict[str, Any]:
        delta = {"content": piece.text} if piece.text else {}
        return {
            "index": index,
            "delta": delta,
            "finish_reason": piece.finish,
            **told(piece.tokens),
        }

    def first(index: int) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}

    return ResponseFormat("chat.completion", "chat.completion.chunk", choice, change, first)
