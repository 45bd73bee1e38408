"""Response bodies of chat completions and completions, whole and as streamed chunks."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from odesteer.serving.api.response_schema import (
    ChatLogprobs,
    ChoiceDetails,
    CompletionLogprobs,
    ReceiptBody,
    TopLogprob,
    Usage,
)
from odesteer.serving.engine.output import (
    GeneratedText,
    GeneratedToken,
    OutputChunk,
    SteeringSummary,
)


@dataclass(frozen=True)
class ResponseFormat(ABC):
    """How texts become the choices of one endpoint.

    Attributes:
        with_logprobs: whether choices tell log-probabilities.
        with_details: whether choices tell what steering did to each token.
    """

    with_logprobs: bool
    with_details: bool

    object_name: ClassVar[str]
    chunk_object_name: ClassVar[str]
    id_prefix: ClassVar[str]

    def header(self, model: str, *, is_chunk: bool) -> dict[str, Any]:
        """The fields that come first in a response, and in all chunks of one."""
        return {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "object": self.chunk_object_name if is_chunk else self.object_name,
            "created": int(time.time()),
            "model": model,
        }

    def choice(self, index: int, text: GeneratedText) -> dict[str, Any]:
        """A whole choice."""
        return {
            "index": index,
            **self._content(text.text),
            "finish_reason": text.finish_reason,
            **self._token_fields(text.tokens, offset=0),
        }

    def chunk_choice(self, index: int, before: GeneratedText, chunk: OutputChunk) -> dict[str, Any]:
        """A choice in a streamed chunk; ``before`` is the text before it."""
        offset = len(before.text) if self.with_logprobs else 0
        return {
            "index": index,
            **self._chunk_content(chunk.text),
            "finish_reason": chunk.finish_reason,
            **self._token_fields(chunk.tokens, offset),
        }

    def first_chunk_choice(self, index: int) -> dict[str, Any] | None:
        """A choice in the chunk before any text; None if there is no such chunk."""
        return None

    def _token_fields(self, tokens: Sequence[GeneratedToken], offset: int) -> dict[str, Any]:
        """What is told of tokens, of which the first begins at character ``offset``."""
        return {
            "logprobs": self._logprobs(tokens, offset) if self.with_logprobs else None,
            **({"odesteer": choice_details(tokens)} if self.with_details else {}),
        }

    @abstractmethod
    def _content(self, text: str) -> dict[str, Any]:
        """The text of a whole choice."""

    @abstractmethod
    def _chunk_content(self, text: str) -> dict[str, Any]:
        """The text of a choice in a chunk."""

    @abstractmethod
    def _logprobs(self, tokens: Sequence[GeneratedToken], offset: int) -> Any:
        """The log-probabilities of tokens, in the form of this endpoint."""


class ChatFormat(ResponseFormat):
    """Choices of ``/v1/chat/completions``."""

    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def first_chunk_choice(self, index: int) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _chunk_content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _logprobs(self, tokens: Sequence[GeneratedToken], offset: int) -> ChatLogprobs:
        return {
            "content": [
                {
                    **_top_logprob(token.text, token.logprob),
                    "top_logprobs": [
                        _top_logprob(each.text, each.logprob) for each in token.alternatives
                    ],
                }
                for token in tokens
                if token.logprob is not None
            ],
            "refusal": None,
        }


class CompletionFormat(ResponseFormat):
    """Choices of ``/v1/completions``."""

    object_name = chunk_object_name = "text_completion"
    id_prefix = "cmpl"

    def _content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _chunk_content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _logprobs(self, tokens: Sequence[GeneratedToken], offset: int) -> CompletionLogprobs:
        logprobs: CompletionLogprobs = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token in tokens:
            if token.logprob is None and token.is_prompt:
                logprobs["tokens"].append(token.text)
                logprobs["token_logprobs"].append(None)
                logprobs["top_logprobs"].append(None)
                logprobs["text_offset"].append(offset)
            if token.logprob is not None:
                logprobs["tokens"].append(token.text)
                logprobs["token_logprobs"].append(_finite(token.logprob))
                top = {each.text: _finite(each.logprob) for each in token.alternatives}
                logprobs["top_logprobs"].append(top)
                logprobs["text_offset"].append(offset)
            offset += len(token.text)
        return logprobs


def usage(n_prompt: int, n_generated: int) -> Usage:
    """Numbers of tokens."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
    }


def receipt(choices: Sequence[Sequence[SteeringSummary]]) -> ReceiptBody:
    """The steering receipt of all choices."""
    return {
        "applied": [
            {
                "choice": choice,
                "name": summary.name,
                "layer": summary.layer,
                "position": summary.position,
                "part": summary.part,
                "quantity": summary.quantity,
                "amount": summary.amount,
                "digest": summary.digest,
                "mean_before": summary.mean_before,
                "mean_after": summary.mean_after,
                "tokens": summary.tokens,
                "gate_open": summary.gate_open,
            }
            for choice, summaries in enumerate(choices)
            for summary in summaries
        ]
    }


def choice_details(tokens: Sequence[GeneratedToken]) -> ChoiceDetails:
    """What steering did to each token."""
    return {
        "tokens": [
            {
                "text": token.text,
                "values": {
                    name: {"before": barrier.before, "after": barrier.after}
                    for name, barrier in token.barriers.items()
                },
            }
            for token in tokens
            if not token.is_prompt
        ]
    }


def _top_logprob(text: str, logprob: float) -> TopLogprob:
    known = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": _finite(logprob), "bytes": known}


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI says -9999 of tokens that cannot come."""
    return max(logprob, -9999.0)
