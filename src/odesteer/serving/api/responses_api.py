"""Answers of ``/v1/responses``: OpenAI's Responses API for text, whole and streamed."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from odesteer.serving.api.errors import as_api_error
from odesteer.serving.api.request_parsing import ParsedRequest
from odesteer.serving.api.request_schema import ResponsesRequest
from odesteer.serving.api.responses import choice_details, receipt
from odesteer.serving.api.streaming import AnswerWriter, Chunks, event
from odesteer.serving.engine.output import GeneratedText


class ResponsesWriter(AnswerWriter):
    """Answers with one message of one text."""

    def __init__(self, body: ResponsesRequest) -> None:
        self._body = body
        self._id = f"resp_{uuid.uuid4().hex}"
        self._message_id = f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, parsed: ParsedRequest, texts: Sequence[GeneratedText]) -> dict[str, Any]:
        (text,) = texts
        is_cut = text.finish_reason == "length"
        status = "incomplete" if is_cut else "completed"
        n_generated = text.n_generated
        found = {
            **self._response(status),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [self._message(status, [_part(text.text)])],
            "usage": {
                "input_tokens": parsed.n_prompt,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": n_generated,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": parsed.n_prompt + n_generated,
            },
            "steering_receipt": receipt([text.steering]),
        }
        if self._body.token_details:
            found["odesteer"] = choice_details(text.tokens)
        return found

    async def events(self, parsed: ParsedRequest, chunks: Chunks) -> AsyncIterator[bytes]:
        number = 0

        def told(kind: str, **fields: Any) -> bytes:
            nonlocal number
            content = {"type": kind, "sequence_number": number, **fields}
            number += 1
            return event(content, kind)

        message = {"output_index": 0, "item_id": self._message_id, "content_index": 0}
        text = GeneratedText()
        try:
            running = self._response("in_progress")
            yield told("response.created", response=running)
            yield told("response.in_progress", response=running)
            item = self._message("in_progress", [])
            yield told("response.output_item.added", output_index=0, item=item)
            yield told("response.content_part.added", **message, part=_part(""))
            async for _, chunk in chunks:
                text.add(chunk)
                if chunk.text:
                    more: dict[str, Any] = {}
                    if self._body.token_details:
                        more["odesteer"] = choice_details(chunk.tokens)
                    delta = {"delta": chunk.text, "logprobs": [], **more}
                    yield told("response.output_text.delta", **message, **delta)
            whole = self.whole(parsed, [text])
            yield told("response.output_text.done", **message, text=text.text, logprobs=[])
            yield told("response.content_part.done", **message, part=_part(text.text))
            yield told("response.output_item.done", output_index=0, item=whole["output"][0])
            yield told(f"response.{whole['status']}", response=whole)
        except Exception as error:
            body = as_api_error(error).body["error"]
            yield told("error", code=body["code"], message=body["message"], param=body["param"])

    def _response(self, status: str) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": body.model,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": body.text.format.type}},
            "tool_choice": "none",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
