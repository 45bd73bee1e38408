"""The forms of answers: those of OpenAI's API, and what is told of steering beside them."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from typing_extensions import NotRequired, TypedDict

from odesteer.serving.engine.output import SteeringSummary, Token


class Usage(TypedDict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AppliedSteering(TypedDict):
    """What one steerer did to one choice, at one site.

    Means are of the log-density ratio, nats, over the generated tokens that it acted on.
    """

    choice: int
    name: str
    layer: int
    position: str
    part: str
    quantity: str | None
    amount: float | None
    digest: str
    mean_before: float | None
    mean_after: float | None
    tokens: int
    gate_open: bool | None


class ReceiptBody(TypedDict):
    """What steering was applied to an answer."""

    applied: list[AppliedSteering]


class BarrierChangeBody(TypedDict):
    """Log-density ratio, nats, before and after steering."""

    before: float
    after: float


class TokenDetails(TypedDict):
    """One token, and by the name of each steerer what it did where the token was chosen."""

    text: str
    values: dict[str, BarrierChangeBody]


class ChoiceDetails(TypedDict):
    """What steering did to each token of a choice."""

    tokens: list[TokenDetails]


class TopLogprob(TypedDict):
    """A token that could have been chosen."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(TopLogprob):
    """A token, and those that could have been chosen in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a chat's tokens."""

    content: list[ChatLogprob]
    refusal: None


class CompletionLogprobs(TypedDict):
    """Log-probabilities of a text's tokens."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class AssistantMessage(TypedDict):
    """An answer in a chat."""

    role: str
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One of the answers in a chat."""

    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: ChatLogprobs | None
    odesteer: NotRequired[ChoiceDetails]


class CompletionChoice(TypedDict):
    """One of the continuations of a text."""

    index: int
    text: str
    finish_reason: str
    logprobs: CompletionLogprobs | None
    odesteer: NotRequired[ChoiceDetails]


class ChatResponse(TypedDict):
    """An answered chat."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    steering_receipt: ReceiptBody


class CompletionResponse(TypedDict):
    """Continued texts."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    steering_receipt: ReceiptBody


def opening(kind: str, model: str) -> dict[str, Any]:
    """What every answer, and every chunk of one, begins with."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def usage(n_prompt: int, n_generated: int) -> Usage:
    """Numbers of tokens."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
    }


def receipt(accounts: Sequence[Sequence[SteeringSummary]]) -> ReceiptBody:
    """The accounts of all choices."""
    return {
        "applied": [
            {
                "choice": choice,
                "name": account.name,
                "layer": account.layer,
                "position": account.position,
                "part": account.part,
                "quantity": account.quantity,
                "amount": account.amount,
                "digest": account.digest,
                "mean_before": account.mean_before,
                "mean_after": account.mean_after,
                "tokens": account.tokens,
                "gate_open": account.is_open,
            }
            for choice, own in enumerate(accounts)
            for account in own
        ]
    }


def details(tokens: Sequence[Token]) -> ChoiceDetails:
    """What steering did to each token."""
    return {
        "tokens": [
            {
                "text": token.text,
                "values": {
                    name: {"before": ratio.before, "after": ratio.after}
                    for name, ratio in token.values.items()
                },
            }
            for token in tokens
        ]
    }


def chat_logprobs(tokens: Sequence[Token]) -> ChatLogprobs:
    """The figures of tokens for which they were asked."""
    return {
        "content": [
            {
                **_top(token.text, token.logprob),
                "top_logprobs": [_top(one.text, one.logprob) for one in token.alternatives],
            }
            for token in tokens
            if token.logprob is not None
        ],
        "refusal": None,
    }


def text_logprobs(tokens: Sequence[Token], offset: int) -> CompletionLogprobs:
    """The same for a text, of which ``offset`` characters came before."""
    told: CompletionLogprobs = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for token in tokens:
        if token.logprob is not None:
            told["tokens"].append(token.text)
            told["token_logprobs"].append(_finite(token.logprob))
            top = {one.text: _finite(one.logprob) for one in token.alternatives}
            told["top_logprobs"].append(top)
            told["text_offset"].append(offset)
        offset += len(token.text)
    return told


def _top(text: str, logprob: float) -> TopLogprob:
    known = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": _finite(logprob), "bytes": known}


def _finite(logprob: float) -> float:
    """JSON has no infinity; this is what OpenAI says of tokens that cannot come."""
    return max(logprob, -9999.0)
