"""Schema of request bodies (pydantic): OpenAI's API, and the fields for steering."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from odesteer.methods import Amount
from odesteer.serving.steerers import SteeringSpec
from odesteer.untrusted import has_lone_surrogate


def _check_unicode(text: str) -> str:
    if has_lone_surrogate(text):
        raise ValueError("the text holds half of a surrogate pair, which is no character")
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]

# Fields of OpenAI's API for features that this server lacks, and values that ask for none.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}
# Fields that do not change the answer.
_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")


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


class BaseCompletionRequest(_StrictModel):
    """What chat completions and completions have in common."""

    model: Text = Field(max_length=1024, description="The model, as in bundled+truth@1.5")
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: Finite = Field(default=1.0, ge=0, le=2)
    top_p: Finite = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=2**31, description="0 samples from all tokens.")
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
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class TextContent(_StrictModel):
    """A part of a message's content; only text is supported."""

    type: Literal["text"]
    text: Text


class ChatMessage(_StrictModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextContent] = Field(default="")
    name: Text | None = None

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
    def message(self) -> dict[str, str]:
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatCompletionRequest(BaseCompletionRequest):
    """A chat to answer."""

    messages: list[ChatMessage] = Field(min_length=1)
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
    logprobs: int | None = Field(default=None, ge=0, le=20)

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)
