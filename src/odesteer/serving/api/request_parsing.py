"""From the body of a request to generation requests: steering, encoding, limits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.models import SteeredModel
from odesteer.models.generation.watermark import watermarking_config
from odesteer.models.tokens.chat_template import ChatTemplate
from odesteer.serving.api.errors import APIError
from odesteer.serving.api.request_schema import BaseCompletionRequest
from odesteer.serving.engine import Engine, GenerationRequest, SamplingParams
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import SteererRegistry, SteeringSpec, parse_model_name

_MAX_TEXTS = 128
_ENCODE_IN_THREAD = 20_000
"""Characters from which on a prompt is encoded in a thread, so as not to hold up others."""


@dataclass(frozen=True)
class ParsedRequest:
    """What the body of a request asks the engine for.

    Attributes:
        requests: one for each text, all choices of the first prompt first.
        n_prompt: number of tokens of all prompts.
        headers: what the client is told: limits that were lowered, fields that change nothing.
    """

    requests: list[GenerationRequest]
    n_prompt: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptOptions:
    """What one endpoint asks for beside the common fields.

    Attributes:
        logprobs: see `SamplingParams`.
        max_tokens: the most tokens of one text; without it up to ``default_max_tokens`` or,
            without these, as many as the context and the settings allow.
        max_tokens_field: what clients call it.
        template: variables of the chat template.
        tools: functions that the chat template describes to the model.
        echo: whether the prompt is sent back.
        prompt_end: the text at which the prompt ends for steerers; see `CompletionRequest`.
        ignored: fields of the body that change nothing.
    """

    logprobs: int | None = None
    max_tokens: int | None = None
    default_max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    template: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    echo: bool = False
    prompt_end: str | None = None
    ignored: Sequence[str] = ()


async def parse_request(
    body: BaseCompletionRequest,
    prompts: Sequence[Any],
    engine: Engine,
    settings: Settings,
    options: PromptOptions,
) -> ParsedRequest:
    """The generation requests for ``prompts``: texts, chats or lists of token ids.

    Raises `InvalidInputError` for what cannot be done, and `APIError` where OpenAI has a code.
    """
    steering = _steering(body, engine)
    n_texts = len(prompts) * body.n
    if n_texts > _MAX_TEXTS:
        raise InvalidInputError(
            f"{len(prompts)} prompts with n={body.n} are {n_texts} texts; ask for {_MAX_TEXTS}"
            " at most in one request."
        )
    encoded = [await _encode(prompt, engine, options) for prompt in prompts]
    requests: list[GenerationRequest] = []
    lowered = None
    for ids in encoded:
        limit = min(settings.max_tokens, _tokens_left(len(ids), engine, settings, options))
        asked = options.max_tokens
        if asked is not None and asked > limit:
            if settings.strict:
                raise InvalidInputError(
                    f"{options.max_tokens_field} is {asked}; after a prompt of {len(ids)} tokens"
                    f" this server writes {limit} at most."
                )
            lowered = limit if lowered is None else min(lowered, limit)
        default = limit if options.default_max_tokens is None else options.default_max_tokens
        request = GenerationRequest(
            tuple(ids),
            _sampling(body, engine, options, min(default if asked is None else asked, limit)),
            tuple(steering),
            options.echo,
        )
        if request.is_scored:
            end = _prompt_end(ids, options.prompt_end, engine.lm.tokenizer)
            request = replace(request, prompt_end=end)
        requests += [_choice(request, choice) for choice in range(body.n)]
    headers = {}
    if lowered is not None:
        headers["X-Odesteer-Lowered"] = f"{options.max_tokens_field}={lowered}"
    if options.ignored:
        headers["X-Odesteer-Ignored"] = ", ".join(options.ignored)
    return ParsedRequest(requests, sum(map(len, encoded)), headers)


def _steering(body: BaseCompletionRequest, engine: Engine) -> list[SteeringSpec]:
    try:
        steering = parse_model_name(body.model, engine.model_id, engine.steerers)
    except UnknownNameError as error:
        raise APIError(404, str(error), param="model", code="model_not_found") from error
    steering += [field.spec for field in body.steering]
    if getattr(body, "echo", False) and getattr(body, "logprobs", None) is not None:
        _check_scorable(steering, engine.steerers)
    return steering


def _check_scorable(steering: Sequence[SteeringSpec], steerers: SteererRegistry) -> None:
    """Raise `InvalidInputError` for gates: they decide in passes that end with the prompt."""
    for spec in steering:
        if any(member.gate is not None for member in steerers[spec.name].steerer.members):
            raise InvalidInputError(
                f"{spec.name!r} has a condition on the prompt, and texts that are scored (echo with"
                " logprobs) have none; score with steerers without a gate."
            )


def _sampling(
    body: BaseCompletionRequest, engine: Engine, options: PromptOptions, max_tokens: int
) -> SamplingParams:
    biases = tuple((int(token), value) for token, value in body.logit_bias.items())
    unknown = [token for token, _ in biases if token >= engine.vocabulary]
    if unknown:
        raise APIError(
            400,
            f"logit_bias names the token {unknown[0]}, and the model knows {engine.vocabulary},"
            " counted from zero.",
            param="logit_bias",
            code="invalid_value",
        )
    watermark = None if body.watermarking_config is None else body.watermarking_config.text
    if watermark is not None:
        watermarking_config(watermark)  # raises `InvalidInputError`
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(body.top_k, 0),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=biases,
        json_schema=body.schema_text,
        watermark=watermark,
        seed=body.seed,
        stop=body.stop_strings,
        logprobs=options.logprobs,
    )


def _choice(request: GenerationRequest, choice: int) -> GenerationRequest:
    """One of several choices: its number is added to the seed."""
    sampling = request.sampling
    if sampling.seed is None or not choice:
        return request
    return replace(request, sampling=replace(sampling, seed=sampling.seed + choice))


async def _encode(prompt: Any, engine: Engine, options: PromptOptions) -> Sequence[int]:
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        if max(prompt) >= engine.vocabulary:
            raise InvalidInputError(
                f"the prompt holds the token {max(prompt)}, and the model knows"
                f" {engine.vocabulary}, counted from zero."
            )
        return prompt
    size = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
    if size > _ENCODE_IN_THREAD:
        return await asyncio.to_thread(_encode_text, prompt, engine, options)
    return _encode_text(prompt, engine, options)


def _encode_text(prompt: Any, engine: Engine, options: PromptOptions) -> Sequence[int]:
    if isinstance(prompt, list):
        prompt = _rendered(prompt, engine.lm, options)
    try:
        return engine.lm.encode(prompt).ids
    except InvalidInputError as error:
        if "the model's context" in str(error):
            raise _too_long(str(error)) from error
        raise


def _rendered(messages: list[dict[str, Any]], lm: SteeredModel, options: PromptOptions) -> str:
    """A chat as the chat template writes it, with tools and variables of the template.

    Raises `InvalidInputError` for what the template refuses or leaves out.
    """
    arguments = {**lm.chat_template_kwargs, **options.template}
    if options.tools:
        arguments["tools"] = [dict(tool) for tool in options.tools]
    template = ChatTemplate(lm.tokenizer, arguments)
    text = template.prompt(messages, "the chat")
    if any("tool_calls" in each for each in messages):
        without = [
            {key: value for key, value in each.items() if key != "tool_calls"} for each in messages
        ]
        if text == template.prompt(without, "the chat"):
            raise InvalidInputError(
                "tool_calls: the chat template of this model says nothing of tool calls; send them"
                " as text."
            )
    return text


def _prompt_end(ids: Sequence[int], marker: str | None, tokenizer: Any) -> int:
    """How many tokens, from the first, lie wholly before the end of the last ``marker``.

    Without a marker only the first token is the prompt.
    """
    if marker is None:
        return 1
    position = tokenizer.decode(ids).rfind(marker)
    if position < 0:
        raise APIError(
            400,
            f"prompt_end: {marker!r:.80} is not in the prompt.",
            param="prompt_end",
            code="invalid_value",
        )
    end = position + len(marker)
    low, high = 1, len(ids)
    while low < high:  # the largest number of tokens whose text is no longer than that
        middle = (low + high + 1) // 2
        if len(tokenizer.decode(ids[:middle])) <= end:
            low = middle
        else:
            high = middle - 1
    return low


def _tokens_left(n_prompt: int, engine: Engine, settings: Settings, options: PromptOptions) -> int:
    """How many tokens may follow a prompt. Raises `APIError` if it is too long."""
    if n_prompt > settings.max_prompt:
        raise _too_long(
            f"the prompt has {n_prompt} tokens, and this server takes {settings.max_prompt};"
            " shorten it."
        )
    context = engine.lm.context
    if context is None:
        return settings.max_tokens
    if n_prompt > context or (n_prompt == context and options.max_tokens != 0):
        raise _too_long(
            f"the prompt has {n_prompt} tokens, which leaves no room in the model's context of"
            f" {context}; shorten it."
        )
    return context - n_prompt


def _too_long(message: str) -> APIError:
    return APIError(400, message, param="messages", code="context_length_exceeded")
