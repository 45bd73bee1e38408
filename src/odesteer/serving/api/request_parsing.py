"""From a request to the texts that the engine is asked for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.serving.api.request_schema import BaseCompletionRequest
from odesteer.serving.engine import Engine, GenerationRequest, SamplingParams
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import steering_in

_MOST_TEXTS = 128
_LONG = 20_000  # characters; encoding more would keep other requests waiting


@dataclass(frozen=True)
class ParsedRequest:
    """What a request asks for.

    Attributes:
        jobs: the texts, all choices of the first prompt first.
        n_prompt: number of tokens of all prompts.
    """

    jobs: list[GenerationRequest]
    n_prompt: int


async def asked(
    request: BaseCompletionRequest,
    prompts: Sequence[Any],
    engine: Engine,
    settings: Settings,
    *,
    logprobs: int | None,
    max_tokens: int | None,
    usual_tokens: int | None = None,
) -> ParsedRequest:
    """The jobs of a request for texts behind ``prompts``: texts, chats or numbers of tokens.

    Without ``max_tokens`` texts have ``usual_tokens``, or as many as there is room for. Raises
    `InvalidInputError` for what cannot be done.
    """
    steering = steering_in(request.model, engine.model_id, engine.steerers)
    steering += [field.applied for field in request.steering]
    n_texts = len(prompts) * request.n
    if n_texts > _MOST_TEXTS:
        raise InvalidInputError(
            f"{len(prompts)} prompts with n={request.n} are {n_texts} texts; ask for {_MOST_TEXTS}"
            " at most in one request."
        )
    if max_tokens is not None and max_tokens > settings.max_tokens:
        raise InvalidInputError(
            f"max_tokens is {max_tokens}, and this server writes {settings.max_tokens} at most."
        )
    encoded = [await _encoded(prompt, engine) for prompt in prompts]
    jobs = []
    for ids in encoded:
        room = _room(len(ids), engine, settings)
        usual = min(usual_tokens or settings.max_tokens, settings.max_tokens, room)
        if max_tokens is not None and max_tokens > room:
            raise InvalidInputError(
                f"the prompt has {len(ids)} tokens and max_tokens is {max_tokens}, more than the"
                f" model's context of {engine.lm.context}; set max_tokens to {room} at most."
            )
        sampling = SamplingParams(
            max_tokens=usual if max_tokens is None else max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            stop=request.stops,
            logprobs=logprobs,
        )
        jobs += [
            GenerationRequest(tuple(ids), _with_seed(sampling, choice), tuple(steering))
            for choice in range(request.n)
        ]
    return ParsedRequest(jobs, sum(map(len, encoded)))


def _with_seed(sampling: SamplingParams, choice: int) -> SamplingParams:
    """The sampling of one of several choices: seeds are counted on from that of the request."""
    if sampling.seed is None or not choice:
        return sampling
    return replace(sampling, seed=sampling.seed + choice)


async def _encoded(prompt: Any, engine: Engine) -> Sequence[int]:
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        if max(prompt) >= engine.vocabulary:
            raise InvalidInputError(
                f"the prompt holds the token {max(prompt)}, and the model knows"
                f" {engine.vocabulary}, counted from zero."
            )
        return prompt
    size = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
    try:
        if size > _LONG:
            return (await asyncio.to_thread(engine.lm.encode, prompt)).ids
        return engine.lm.encode(prompt).ids
    except OdesteerError:
        raise
    except Exception as error:  # whatever the template of a chat objects to
        raise InvalidInputError(f"the chat template refuses this chat: {error}") from error


def _room(n_prompt: int, engine: Engine, settings: Settings) -> int:
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
