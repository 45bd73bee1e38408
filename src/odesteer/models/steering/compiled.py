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

from odesteer.artifact.positions import SteerPosition
from odesteer.errors import ModelError
from odesteer.models.steering.forward_pass import ForwardPass
from odesteer.models.steering.positions import steered_columns


class CompiledIntervention(Protocol):
    """What the operators call."""

    def is_covered(self) -> bool:
        """Whether the calling thread is steered; warns once if it is not."""

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


@torch.library.custom_op("odesteer::steer_if_covered", mutates_args=())
def _steer_if_covered(states: Tensor, number: int) -> Tensor:
    intervention = _interventions[number]
    return intervention.apply(states) if intervention.is_covered() else states.clone()


@_steer_if_covered.register_fake
def _(states: Tensor, number: int) -> Tensor:
    return torch.empty_like(states)


def apply_traced(
    states: Tensor,
    position: SteerPosition,
    number: int,
    current: ForwardPass,
    *,
    is_steered_thread: bool,
) -> Any:
    """States `[batch, columns, d]` after an intervention, while a graph is traced.

    In graphs for threads other than the one that steers, the operator looks when it runs whether
    its thread is covered.
    """
    steer = torch.ops.odesteer.steer if is_steered_thread else torch.ops.odesteer.steer_if_covered
    batch, length, _ = states.shape
    (end,) = current.ends
    if current.device_past is not None:
        return _apply_behind_cache(states, position, number, current.device_past, end, steer)
    tokens = current.active(length, states.device)
    columns = steered_columns(position, length, current.past, current.ends)
    if not columns:
        return states
    first = end - current.past
    has_last = position.tokens == "last" and position.start == 0
    if has_last and tokens is not None and 0 < first <= length:
        # The last token of each prompt, on whichever side the padding is, and what follows.
        last = (tokens[:, :first] * torch.arange(first, device=states.device)).argmax(dim=1)
        where: tuple[Any, ...] = (torch.arange(batch, device=states.device), last)
        new = steer(states[where][:, None], number)[:, 0]
        if current.past:  # a chunk of the prompt may hold padding only
            new = torch.where(tokens[:, :first].any(dim=1)[:, None], new, states[where])
        states = states.index_put(where, new)
        columns = range(first, columns.stop)
        if not columns:
            return states
    old = states[:, columns.start : columns.stop]
    new = steer(old, number)
    if tokens is not None:
        new = torch.where(tokens[:, columns.start : columns.stop, None], new, old)
    return torch.cat([states[:, : columns.start], new, states[:, columns.stop :]], dim=1)


def _apply_behind_cache(
    states: Tensor, position: SteerPosition, number: int, past: Tensor, end: int, steer: Any
) -> Any:
    """The same where the number of ``past`` columns is on the device (static caches).

    ``end`` is where the prompt ends, 0 where that is not known and has passed.
    """
    if states.shape[1] > 1:
        raise ModelError(
            "a graph with a static cache that is in use takes single tokens; read the prompt in one"
            " pass, or uncompiled."
        )
    if not end and not position.is_plain:
        raise ModelError(
            f"a compiled graph with a static cache does not know where position {str(position)!r}"
            " begins; say where the prompt ends with prompt_width=."
        )
    if not end:
        return states if position.tokens == "prompt" else steer(states, number)
    new = steer(states, number)
    if position.tokens == "all":
        return new
    column = past.to(states.device)
    if position.tokens == "prompt":
        return torch.where(column < end, new, states)
    moved = column >= end - position.lead + position.start
    if position.stop is not None:
        moved = moved & (column < end - position.lead + position.stop)
    return torch.where(moved, new, states)
