"""The model provider for Inspect AI."""

from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from odesteer.data import Message
from odesteer.errors import InvalidInputError
from odesteer.evaluation.harness.arguments import read_steering
from odesteer.evaluation.inspect_ai.batching import BatchingThread
from odesteer.methods import Amount
from odesteer.models import SteeredModel

_UNSUPPORTED = ("frequency_penalty", "presence_penalty", "logit_bias", "best_of", "response_schema")
_DEFAULT_MAX_TOKENS = 2048


class SteeredModelAPI(ModelAPI):  # type: ignore[misc]
    """A steered model of odesteer: ``odesteer/MODEL`` with a hub id or a folder.

    Model arguments (``-M name=value``): ``steer``, the file of a steerer, or several with commas,
    each with an amount of its own after ``@`` if it shall have one; ``level``, ``T``,
    ``strength`` or ``interpolation``, the amount of the others; ``model_path``, ``revision``,
    ``device``, ``dtype``; ``batch_size`` (32); ``do_sample`` (true). Others are refused.

    Generation runs in one thread, in batches of requests with the same options; the hooks of the
    steerers are active there. Tools, log-probabilities and penalties are not supported, and asking
    for them is an error.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_vars: Sequence[str] = (),
        config: GenerateConfig | None = None,
        *,
        steer: str | Sequence[str] | None = None,
        level: float | None = None,
        T: float | None = None,
        strength: float | None = None,
        interpolation: float | None = None,
        model_path: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 32,
        do_sample: bool = True,
        **unknown: Any,
    ) -> None:
        super().__init__(
            model_name, base_url, api_key, list(api_key_vars), config or GenerateConfig()
        )
        if unknown:
            raise InvalidInputError(
                f"{next(iter(unknown))!r} is no model argument of odesteer; there are steer, level,"
                " T, strength, interpolation, model_path, revision, device, dtype, batch_size and"
                " do_sample."
            )
        amount = Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)
        self.steerers = read_steering(list(steer) if isinstance(steer, tuple) else steer, amount)
        self.lm = SteeredModel.from_pretrained(
            model_path or model_name, revision=revision, device=device, dtype=dtype
        )
        for one in self.steerers:  # fails here rather than in the first sample
            self.lm.steering(one.steerer, **one.arguments)
        self.do_sample = do_sample
        self._batch_size = batch_size
        self._thread = BatchingThread(self._texts, batch_size)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat. Raises `InvalidInputError` for what is not supported."""
        if tools:
            raise InvalidInputError("the provider odesteer has no tools; use a task without.")
        asked = [name for name in _UNSUPPORTED if getattr(config, name, None) is not None]
        asked += ["logprobs"] if config.logprobs else []
        if asked:
            raise InvalidInputError(f"the provider odesteer does not support {asked[0]}.")
        started = perf_counter()
        prompt = self._prompt(input)
        future = self._thread.submit(prompt, self._options(config))
        found, n_prompt, limit = await anyio.to_thread.run_sync(
            future.result, abandon_on_cancel=True
        )
        choices = []
        for one in found:
            text, stopped = _until_stop(one.text, config.stop_seqs or ())
            ended = stopped or len(one.tokens) < limit
            choices.append(
                ChatCompletionChoice(
                    message=ChatMessageAssistant(
                        content=text, model=self.model_name, source="generate"
                    ),
                    stop_reason="stop" if ended else "max_tokens",
                )
            )
        n_new = sum(len(one.tokens) for one in found)
        return ModelOutput(
            model=self.model_name,
            choices=choices,
            usage=ModelUsage(
                input_tokens=n_prompt, output_tokens=n_new, total_tokens=n_prompt + n_new
            ),
            time=perf_counter() - started,
            metadata={"steering": [str(one) for one in self.steerers]},
        )

    def max_tokens(self) -> int | None:
        return _DEFAULT_MAX_TOKENS

    def max_connections(self) -> int:
        return self._batch_size

    def connection_key(self) -> str:
        return f"odesteer/{self.model_name}"

    def collapse_user_messages(self) -> bool:
        return True

    async def aclose(self) -> None:
        await anyio.to_thread.run_sync(self._thread.close)

    def _prompt(self, messages: Sequence[ChatMessage]) -> Any:
        chat = tuple(Message(message.role, message.text) for message in messages)
        if getattr(self.lm.tokenizer, "chat_template", None):
            return chat
        # A base model has no roles; this is what its training texts have most of.
        turns = "".join(f"{message.role}: {message.content}\n\n" for message in chat)
        return f"{turns}assistant:"

    def _options(self, config: GenerateConfig) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_new_tokens": config.max_tokens or _DEFAULT_MAX_TOKENS,
            "do_sample": self.do_sample and config.temperature != 0,
            "seed": config.seed,
        }
        if options["do_sample"]:
            for name in ("temperature", "top_p", "top_k"):
                if getattr(config, name) is not None:
                    options[name] = getattr(config, name)
        if config.stop_seqs:
            options["stop_strings"] = tuple(config.stop_seqs)
        if config.num_choices is not None and config.num_choices > 1:
            options["num_return_sequences"] = config.num_choices
        return options

    def _texts(self, prompts: Sequence[Any], options: dict[str, Any]) -> list[Any]:
        """For each prompt its generations, its number of tokens and the limit for new ones."""
        options = dict(options)
        if "stop_strings" in options:
            options["stop_strings"] = list(options["stop_strings"])
        lengths = [len(self.lm.encode(prompt)) for prompt in prompts]
        if self.lm.context is not None:
            room = self.lm.context - max(lengths)
            if room < 1:
                raise InvalidInputError(
                    f"a prompt has {max(lengths)} tokens, and the model's context {self.lm.context}"
                    " leaves no room for an answer."
                )
            options["max_new_tokens"] = min(options["max_new_tokens"], room)
        with ExitStack() as stack:
            for one in self.steerers:
                stack.enter_context(self.lm.steering(one.steerer, **one.arguments))
            found = self.lm.generate(list(prompts), receipt=True, **options)
        copies = options.get("num_return_sequences", 1)
        return [
            (found[i * copies : (i + 1) * copies], length, options["max_new_tokens"])
            for i, length in enumerate(lengths)
        ]


def _until_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop sequence, and whether there was one."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
