"""``POST /playground/trajectory``: how steering moves one activation of a text."""

import math
from contextlib import ExitStack
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from typing_extensions import Self

from odesteer.artifact import Steerer
from odesteer.data import Example, Message
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.serving.api.request_schema import ChatMessage, SteeringField, Text
from odesteer.serving.playground.plot_data import trajectory_plot
from odesteer.serving.steerers import SteererRegistry

# The most other activations that are drawn around the one that moves.
_MAX_NEIGHBOURS = 96


class TrajectoryRequest(BaseModel):
    """A prompt (a text or a chat) and the steered text after it.

    ``shown`` is the steerer whose flow is drawn. ``token`` is a token of the text: the activation
    is the one that it was chosen from; without it, the last.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Text | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    text: Text = ""
    steering: list[SteeringField] = Field(min_length=1, max_length=8)
    shown: Text = Field(max_length=64)
    token: int | None = Field(default=None, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either a prompt or messages")
        if self.shown not in [field.name for field in self.steering if not field.observe]:
            raise ValueError(f"the steerer shown, {self.shown!r}, is not one of those that act")
        return self


def trajectory_response(
    lm: SteeredModel, steerers: SteererRegistry, request: TrajectoryRequest
) -> dict[str, Any]:
    """The trajectory that a request asks for, as plain numbers.

    Steerers that act before the shown one act here too. Of a set the last steerer with a barrier
    is shown. Raises `InvalidInputError` for what cannot be drawn.
    """
    members = [
        (spec.name, member, spec.amount)
        for spec in (field.spec for field in request.steering if not field.observe)
        for member in steerers[spec.name].steerer.members
    ]
    shown = max(
        (i for i, (name, _, _) in enumerate(members) if name == request.shown),
        key=lambda i: (hasattr(members[i][1].method, "barrier"), i),
    )
    _, steerer, amount = members[shown]
    site = steerer.site
    if site is None:
        raise InvalidInputError(f"{request.shown} is not bound to a layer of the model.")
    amount = steerer.method.default_amount if amount is None else amount
    steerer.method.check_amount(amount)
    earlier = [
        (member, member_amount)
        for i, (_, member, member_amount) in enumerate(members)
        if member.site is not None and (member.site.depth, i) < (site.depth, shown)
    ]
    a = _activations(lm, steerer, request, earlier)
    row = len(a) - 1 if request.token is None else request.token
    if row >= len(a):
        raise InvalidInputError(
            f"the text has {len(a) - 1} tokens; there is no token {row}, counted from zero."
        )
    first = max(0, min(row - _MAX_NEIGHBOURS // 2, len(a) - _MAX_NEIGHBOURS))
    plot = trajectory_plot(steerer.method, a[first : first + _MAX_NEIGHBOURS], row - first, amount)
    tensors = {
        "x": plot.x,
        "y": plot.y,
        "level_sets": plot.level_sets,
        "path": plot.path,
        "times": plot.times,
        "values": plot.values,
        "starts": plot.starts,
        "ends": plot.ends,
    }
    norm = steerer.method.mean_norm_  # of a method that was given it is unknown
    return {
        "shown": request.shown,
        "layer": site.layer,
        "part": site.part,
        "quantity": amount.quantity,
        "amount": float(amount.value),
        "token": None if row == len(a) - 1 else row,
        "mean_norm": float(a.norm(dim=-1).mean()) if math.isnan(norm) else norm,
        "threshold": plot.threshold,
        "reached": plot.reached,
        "condition": None if steerer.gate is None else str(steerer.gate),
        **{name: _rounded(tensor) for name, tensor in tensors.items()},
    }


def _activations(
    lm: SteeredModel,
    shown: Steerer,
    request: TrajectoryRequest,
    earlier: list[tuple[Steerer, Amount | None]],
) -> Tensor:
    """`[n + 1, d]`: at the last token of the prompt and at each of the n tokens of the text."""
    layer, part = shown.site.layer, shown.site.part  # type: ignore[union-attr]
    prompt: Any = request.prompt
    if request.messages is not None:
        prompt = tuple(
            Message(message.message["role"], message.message["content"])
            for message in request.messages
        )
    encoded = lm.encode(prompt)
    positions: tuple[CapturePosition, ...] = ("prompt", "answer")
    if request.text.strip():
        example = Example(prompt, request.text)
    elif isinstance(prompt, str):
        example, positions = Example("", prompt), ("last",)
    else:
        raise InvalidInputError("a chat needs a text that answers it, to show a trajectory.")
    with ExitStack() as stack:
        for member, amount in earlier:
            quantity: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
            stack.enter_context(lm.steering(member, prompt_width=encoded.n_prompt, **quantity))
        captured = lm.capture([example], layer, positions, part=part)
    return torch.cat([captured[position].states[layer] for position in positions])


def _rounded(tensor: Tensor) -> Any:
    """Nested lists of numbers with five significant digits, enough to draw, in half the bytes."""
    return [_rounded(row) if row.ndim else float(f"{float(row):.5g}") for row in tensor.unbind()]
