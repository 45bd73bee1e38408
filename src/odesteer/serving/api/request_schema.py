"""Schema of request bodies (pydantic): OpenAI's API, and the fields for steering."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.serving.steerers import SteeringSpec
from odesteer.untrusted import has_lone_surrogate, parse_json


def _check_unicode(text: str) -> str:
    if has_lone_surrogate(text):
        raise ValueError("the text holds half of a surrogate pair, which is no character")
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenIdText = Annotated[str, Field(pattern=r"^\d{1,9}$")]

# Fields of OpenAI's API for features that this server lacks, and values that ask for none.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "modalities": (["text"],),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}
# Fields that change nothing here, which clients add unasked.
_ALWAYS_IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
)
_IGNORED_UNLESS_STRICT = (
    *("parallel_tool_calls", "reasoning_effort", "reasoning", "verbosity", "prediction"),
    *("prompt_cache_retention", "prompt_cache_options", "include", "truncation", "moderation"),
)
_IGNORED = (*_ALWAYS_IGNORED, *_IGNORED_UNLESS_STRICT)


def ignored_fields(body: Any, *, strict: bool) -> list[str]:
    """The fields of a body that change nothing here.

    Raises `InvalidInputError` for those that ``strict`` refuses.
    """
    found = [name for name in _IGNORED if isinstance(body, dict) and body.get(name) is not None]
    refused = [name for name in found if name in _IGNORED_UNLESS_STRICT]
    if strict and refused:
        raise InvalidInputError(
            f"{refused[0]}: there is no such field; this server was started with --strict."
        )
    return found


class _StrictModel(BaseModel):
    """A model without unknown fields; null is the same as leaving a field out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if value is not None}


class SteeringField(_StrictModel):
    """One steerer of a request; without an amount its method's default."""

    name: Text = Field(max_length=64)
    level: Finite | None = None
    T: Finite | None = None
    strength: Finite | None = None
    interpolation: Finite | None = None
    observe: bool = Field(default=False, description="Move nothing, and measure the barrier.")

    @property
    def spec(self) -> SteeringSpec:
        amount = Amount.of(
            level=self.level, T=self.T, strength=self.strength, interpolation=self.interpolation
        )
        return SteeringSpec(self.name, amount, self.observe)

    @model_validator(mode="after")
    def _check_observe(self) -> "SteeringField":
        if self.spec.amount is not None and self.observe:
            raise ValueError("observing moves nothing, and takes no amount")
        return self


class StreamOptions(_StrictModel):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchemaFormat(_StrictModel):
    """A JSON schema that a text must follow."""

    name: Text | None = None
    description: Text | None = None
    schema_: dict[str, Any] = Field(default={}, alias="schema")
    strict: bool = False


class OutputFormat(_StrictModel):
    """What a text must be: anything, a JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "OutputFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is for the type json_schema, which needs it")
        return self

    @property
    def schema_text(self) -> str | None:
        """The JSON schema; None for any text."""
        if self.type == "text":
            return None
        schema = {"type": "object"} if self.json_schema is None else self.json_schema.schema_
        return json.dumps(schema)


class Watermark(_StrictModel):
    """A watermarking configuration of transformers: a green list, or with ``keys`` SynthID."""

    greenlist_ratio: Finite | None = Field(default=None, gt=0, lt=1)
    bias: Finite | None = None
    hashing_key: int | None = Field(default=None, ge=0, lt=2**63)
    seeding_scheme: Literal["lefthash", "selfhash"] | None = None
    context_width: int | None = Field(default=None, ge=1, le=64)
    ngram_len: int | None = Field(default=None, ge=2, le=64)
    keys: list[Annotated[int, Field(ge=0, lt=2**63)]] | None = Field(default=None, max_length=64)
    context_history_size: int | None = Field(default=None, ge=1, le=2**16)
    sampling_table_seed: int | None = Field(default=None, ge=0, lt=2**63)
    sampling_table_size: int | None = Field(default=None, ge=2, le=2**20)
    skip_first_ngram_calls: bool | None = None

    @property
    def text(self) -> str:
        """The given fields as JSON."""
        return self.model_dump_json(exclude_none=True)


class BaseCompletionRequest(_StrictModel):
    """What chat completions and completions have in common."""

    model: Text = Field(max_length=1024, description="The model, as in bundled+truth@1.5")
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: Finite = Field(default=1.0, ge=0, le=2)
    top_p: Finite = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=-1, lt=2**31, description="0 samples from all tokens.")
    min_p: Finite = Field(default=0.0, ge=0, le=1)
    repetition_penalty: Finite = Field(default=1.0, gt=0, le=10)
    presence_penalty: Finite = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: Finite = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[TokenIdText, Bias] = Field(default={}, max_length=1024)
    response_format: OutputFormat = OutputFormat(type="text")
    watermarking_config: Watermark | None = None
    n: int = Field(default=1, ge=1, le=64)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] = Field(default=[])
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    steering: list[SteeringField] = Field(default=[], max_length=8)
    token_details: bool = Field(default=False, description="Tell what steering did to each token.")

    @model_validator(mode="before")
    @classmethod
    def _check_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = {name: value for name, value in data.items() if name not in _IGNORED}
        for name, values in _UNSUPPORTED.items():
            if name in cls.model_fields or fields.get(name) is None:
                continue
            if fields.pop(name) not in values:
                raise ValueError(f"this server has no {name}; leave it out")
        return fields

    @property
    def schema_text(self) -> str | None:
        """The JSON schema that the text must follow; None for any text."""
        return self.response_format.schema_text

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class TextContent(_StrictModel):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: Text


class ChatMessage(_StrictModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextContent] = Field(default="")
    name: Text | None = None
    tool_calls: list[dict[str, Any]] = Field(default=[], max_length=128)
    tool_call_id: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_fields(cls, data: Any) -> Any:
        """Clients send earlier answers back, with fields that are empty."""
        if not isinstance(data, Mapping):
            return data
        return {
            name: value
            for name, value in data.items()
            if name in cls.model_fields or value not in (None, [], {})
        }

    @property
    def message(self) -> dict[str, Any]:
        """As chat templates take it: the arguments of tool calls are objects there."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": text,
        }
        if self.tool_calls:
            message["tool_calls"] = [_template_call(call) for call in self.tool_calls]
        if self.role == "tool":
            given = {"tool_call_id": self.tool_call_id, "name": self.name}
            message |= {key: value for key, value in given.items() if value is not None}
        return message


def _template_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = parse_json(function["arguments"], "arguments")
    except InvalidInputError:  # what a model wrote need not be JSON
        return call
    return {**call, "function": {**function, "arguments": arguments}}


class InputText(_StrictModel):
    """A part of an input message."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: list[Any] = Field(default=[], max_length=0)
    logprobs: list[Any] = Field(default=[])


class InputMessage(_StrictModel):
    """One message of the input of ``/v1/responses``, those that it answered with included."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[InputText]
    id: Text | None = None
    status: Text | None = None
    phase: Text | None = None

    @property
    def message(self) -> dict[str, Any]:
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class TextFormat(_StrictModel):
    """What the text of a response must be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Text | None = None
    description: Text | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool = False

    @property
    def schema_text(self) -> str | None:
        """The JSON schema; None for any text."""
        if self.type == "text":
            return None
        return json.dumps({"type": "object"} if self.schema_ is None else self.schema_)


class TextOptions(_StrictModel):
    """The text of a response: its format. How verbose it is does not matter here."""

    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesRequest(BaseCompletionRequest):
    """A text to answer, in the form of ``/v1/responses``."""

    input: Text | Annotated[list[InputMessage], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: TextOptions = TextOptions()
    chat_template_kwargs: dict[str, Any] = Field(default={}, max_length=32)
    n: Literal[1] = 1
    max_tokens: None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat."""
        given = self.input
        if isinstance(given, str):
            messages = [{"role": "user", "content": given}]
        else:
            messages = [each.message for each in given]
        if self.instructions is None:
            return messages
        return [{"role": "system", "content": self.instructions}, *messages]

    @property
    def schema_text(self) -> str | None:
        return self.text.format.schema_text


class ChatCompletionRequest(BaseCompletionRequest):
    """A chat to answer."""

    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[dict[str, Any]] = Field(default=[], max_length=128)
    tool_choice: Literal["auto", "none"] = "auto"
    chat_template_kwargs: dict[str, Any] = Field(default={}, max_length=32)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @model_validator(mode="after")
    def _check_combinations(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("give max_tokens or max_completion_tokens, not both")
        return self


class CompletionRequest(BaseCompletionRequest):
    """Prompts to continue: one or several, as texts or as token ids."""

    prompt: (
        Text
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: int | None = Field(default=None, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = Field(default=False, description="Send the prompt back, with logprobs if asked.")
    prompt_end: StopText | None = Field(
        default=None,
        description="With echo: for steerers the prompt ends behind the last occurrence of this"
        " text; what follows counts as generated.",
    )

    @model_validator(mode="after")
    def _check_echo(self) -> "CompletionRequest":
        if not self.echo and (self.max_tokens == 0 or self.prompt_end is not None):
            raise ValueError("max_tokens of 0 and prompt_end need echo: true")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)
