"""Steering inside graphs of `torch.compile`: an intervention as a custom operator.

The operator is opaque, so the compiler traces neither a method nor its state, and the graph does
not break. Where it acts depends on numbers that are constant in the graph, or on tensors, so that
a recorded CUDA graph stays right.
"""

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.models.steering.forward_pass import PassTracker
from odesteer.models.steering.positions import steered_columns


class CompiledIntervention(Protocol):
    """What the operator calls."""

    def apply(self, states: Tensor) -> Tensor:
        """States `[batch, columns, d]` with its rows moved; a copy."""


_numbers = itertools.count()
_interventions: weakref.WeakValueDictionary[int, CompiledIntervention] = (
    weakref.WeakValueDictionary()
)


def register_intervention(intervention: CompiledIntervention) -> int:
    """The number by which graphs refer to an intervention, as long as it lives."""
    number = next(_numbers)
    _interventions[number] = intervention
    return number


@torch.library.custom_op("odesteer::steer", mutates_args=())
def _steer(states: Tensor, number: int) -> Tensor:
    return _interventions[number].apply(states)


@_steer.register_fake
def _(states: Tensor, number: int) -> Tensor:
    return torch.empty_like(states)


def apply_traced(states: Tensor, position: str, number: int, tracker: PassTracker) -> Any:
    """States `[batch, columns, d]` after an intervention, while a graph is traced."""
    batch, length, _ = states.shape
    current, prompt_width = tracker.current, tracker.prompt_columns
    if current.device_past is not None:
        return _apply_behind_cache(states, position, number, current.device_past, prompt_width)
    tokens = current.active(length, states.device)
    columns = steered_columns(position, length, current.past, prompt_width)
    if not columns:
        return states
    if position == "last" and prompt_width is None and tokens is not None:
        last = (tokens * torch.arange(length, device=states.device)).argmax(dim=1)
        where: tuple[Any, ...] = (torch.arange(batch, device=states.device), last)
        new = torch.ops.odesteer.steer(states[where][:, None], number)[:, 0]
        return states.index_put(where, new)
    old = states[:, columns.start : columns.stop]
    new = torch.ops.odesteer.steer(old, number)
    if tokens is not None:
        new = torch.where(tokens[:, columns.start : columns.stop, None], new, old)
    return torch.cat([states[:, : columns.start], new, states[:, columns.stop :]], dim=1)


def _apply_behind_cache(
    states: Tensor, position: str, number: int, past: Tensor, prompt_width: int | None
) -> Any:
    """The same where the number of ``past`` columns is on the device (static caches)."""
    if states.shape[1] > 1:
        raise ModelError(
            "a graph with a static cache that is in use takes single tokens; read the prompt in one"
            " pass, or uncompiled."
        )
    if prompt_width is None:
        return states if position == "prompt" else torch.ops.odesteer.steer(states, number)
    new = torch.ops.odesteer.steer(states, number)
    if position == "all":
        return new
    behind = past.to(states.device) >= prompt_width - (position == "last")
    return torch.where(~behind if position == "prompt" else behind, new, states)
