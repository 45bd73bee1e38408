"""Schema of response bodies: OpenAI's API, and what is reported of steering beside it."""

from typing import Any

from typing_extensions import NotRequired, TypedDict


class Usage(TypedDict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AppliedSteering(TypedDict):
    """What one steerer did to one choice, at one site.

    Means are of the log-density ratio (nats) over the generated tokens that it acted on.
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
    """What steering was applied to a response."""

    applied: list[AppliedSteering]


class BarrierValues(TypedDict):
    """Log-density ratio (nats) before and after steering."""

    before: float
    after: float


class TokenDetails(TypedDict):
    """One token, and by steerer the barrier at the activation that it was chosen from."""

    text: str
    values: dict[str, BarrierValues]


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
    """Log-probabilities of the tokens of a chat choice."""

    content: list[ChatLogprob]
    refusal: None


class CompletionLogprobs(TypedDict):
    """Log-probabilities of the tokens of a completion choice; none for the first of a prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class AssistantMessage(TypedDict):
    """The message that answers a chat."""

    role: str
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One of the answers to a chat."""

    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: ChatLogprobs | None
    odesteer: NotRequired[ChoiceDetails]


class CompletionChoice(TypedDict):
    """One of the continuations of a prompt."""

    index: int
    text: str
    finish_reason: str
    logprobs: CompletionLogprobs | None
    odesteer: NotRequired[ChoiceDetails]


class BaseCompletionResponse(TypedDict):
    """What chat completions and completions have in common."""

    id: str
    object: str
    created: int
    model: str
    usage: Usage
    steering_receipt: ReceiptBody


class ChatCompletionResponse(BaseCompletionResponse):
    """An answered chat."""

    choices: list[ChatChoice]


class CompletionResponse(BaseCompletionResponse):
    """Continued prompts."""

    choices: list[CompletionChoice]


class ResponseObject(TypedDict):
    """The answer of ``/v1/responses``."""

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any]
    incomplete_details: dict[str, str] | None
    steering_receipt: ReceiptBody
    odesteer: NotRequired[ChoiceDetails]


class ModelInfo(TypedDict):
    """A model, or a model under a steerer."""

    id: str
    object: str
    created: int
    owned_by: str
    has_chat_template: bool


class ModelList(TypedDict):
    """All models."""

    object: str
    data: list[ModelInfo]


class BarrierLevels(TypedDict):
    """The values of h (nats) that levels 1 and -1 stand for."""

    upper: float
    lower: float


class SteererInfo(TypedDict):
    """A steerer or a set of them; of a set, layer and position are those of the first site."""

    id: str
    object: str
    method: str
    layer: int
    position: str
    sites: list[dict[str, Any]]
    quantities: list[str]
    default_amount: dict[str, Any]
    barrier: BarrierLevels | None
    gate: str | None
    digest: str
    uploaded: bool
    provenance: dict[str, Any]
    held_out: dict[str, float]
    card: str


class SteererList(TypedDict):
    """All steerers."""

    object: str
    data: list[SteererInfo]


class Health(TypedDict):
    """Whether the server can generate: `ok`, `stalled` (a step takes too long) or `failed`.

    ``heartbeat_age`` is in seconds, since the model last began or ended a step; 0 while it is idle.
    """

    status: str
    model: str
    waiting: int
    running: int
    heartbeat_age: float


class ErrorBody(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """The body of every response that is an error."""

    error: ErrorBody
