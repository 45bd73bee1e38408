"""From the body of a request to generation requests: steering, encoding, limits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from odesteer.errors import InvalidInputError
from odesteer.serving.api.request_schema import BaseCompletionRequest
from odesteer.serving.engine import Engine, GenerationRequest, SamplingParams
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import parse_model_name

_MAX_TEXTS = 128
_ENCODE_IN_THREAD = 20_000
"""Characters from which on a prompt is encoded in a thread, so as not to hold up others."""


@dataclass(frozen=True)
class ParsedRequest:
    """What the body of a request asks the engine for.

    Attributes:
        requests: one for each text, all choices of the first prompt first.
        n_prompt: number of tokens of all prompts.
    """

    requests: list[GenerationRequest]
    n_prompt: int


async def parse_request(
    body: BaseCompletionRequest,
    prompts: Sequence[Any],
    engine: Engine,
    settings: Settings,
    *,
    logprobs: int | None,
    max_tokens: int | None,
    default_max_tokens: int | None = None,
) -> ParsedRequest:
    """The generation requests for ``prompts``: texts, chats or lists of token ids.

    Without ``max_tokens`` texts have up to ``default_max_tokens`` or, without these, as many as the
    context and the settings allow. Raises `InvalidInputError` for what cannot be done.
    """
    steering = parse_model_name(body.model, engine.model_id, engine.steerers)
    steering += [field.spec for field in body.steering]
    n_texts = len(prompts) * body.n
    if n_texts > _MAX_TEXTS:
        raise InvalidInputError(
            f"{len(prompts)} prompts with n={body.n} are {n_texts} texts; ask for {_MAX_TEXTS}"
            " at most in one request."
        )
    if max_tokens is not None and max_tokens > settings.max_tokens:
        raise InvalidInputError(
            f"max_tokens is {max_tokens}, and this server writes {settings.max_tokens} at most."
        )
    encoded = [await _encode(prompt, engine) for prompt in prompts]
    requests = []
    for ids in encoded:
        left = _tokens_left(len(ids), engine, settings)
        if max_tokens is not None and max_tokens > left:
            raise InvalidInputError(
                f"the prompt has {len(ids)} tokens and max_tokens is {max_tokens}, more than the"
                f" model's context of {engine.lm.context}; set max_tokens to {left} at most."
            )
        default = min(default_max_tokens or settings.max_tokens, settings.max_tokens, left)
        sampling = SamplingParams(
            max_tokens=default if max_tokens is None else max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            seed=body.seed,
            stop=body.stop_strings,
            logprobs=logprobs,
        )
        requests += [
            GenerationRequest(tuple(ids), _for_choice(sampling, choice), tuple(steering))
            for choice in range(body.n)
        ]
    return ParsedRequest(requests, sum(map(len, encoded)))


def _for_choice(sampling: SamplingParams, choice: int) -> SamplingParams:
    """The parameters of one of several choices: its number is added to the seed."""
    if sampling.seed is None or not choice:
        return sampling
    return replace(sampling, seed=sampling.seed + choice)


async def _encode(prompt: Any, engine: Engine) -> Sequence[int]:
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        if max(prompt) >= engine.vocabulary:
            raise InvalidInputError(
                f"the prompt holds the token {max(prompt)}, and the model knows"
                f" {engine.vocabulary}, counted from zero."
            )
        return prompt
    size = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
    if size > _ENCODE_IN_THREAD:
        return (await asyncio.to_thread(engine.lm.encode, prompt)).ids
    return engine.lm.encode(prompt).ids


def _tokens_left(n_prompt: int, engine: Engine, settings: Settings) -> int:
    """How many tokens may follow a prompt. Raises `InvalidInputError` if it is too long."""
    if n_prompt > settings.max_prompt:
        raise InvalidInputError(
            f"the prompt has {n_prompt} tokens, and this server takes {settings.max_prompt};"
            " shorten it."
        )
    context = engine.lm.context
    if context is None:
        return settings.max_tokens
    if n_prompt >= context:
        raise InvalidInputError(
            f"the prompt has {n_prompt} tokens, which leaves no room in the model's context of"
            f" {context}; shorten it."
        )
    return context - n_prompt
