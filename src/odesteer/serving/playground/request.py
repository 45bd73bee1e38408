"""What the page asks for to draw a trajectory."""

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from odesteer.serving.schema import ChatMessage, SteeringField, Text


class TrajectoryRequest(BaseModel):
    """A prompt (a text or a chat) and what was written after it, steered.

    ``shown`` is the one of the steerers whose flow is drawn, ``token`` the token of the text whose
    activation it moves: the one that the token was chosen from. Without it, the last.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Text | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    text: Text = ""
    steering: list[SteeringField] = Field(min_length=1, max_length=8)
    shown: Text = Field(max_length=64)
    token: int | None = Field(default=None, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either a prompt or messages")
        if self.shown not in [one.name for one in self.steering if not one.observe]:
            raise ValueError(f"the steerer shown, {self.shown!r}, is not one of those that act")
        return self
