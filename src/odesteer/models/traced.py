"""Moving activations inside graphs of `torch.compile`.

A move is one opaque operation of the graph, so the compiler traces neither a method nor what it
keeps, and there is nothing to break the graph at. What decides where it acts are numbers that are
known when the graph is made, or tensors: nothing that a recorded CUDA graph would keep wrongly.
"""

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.models.positions import steered_columns

if TYPE_CHECKING:
    from odesteer.models.move import Move
    from odesteer.models.passes import Run

_numbers = itertools.count()
_moves: "weakref.WeakValueDictionary[int, Move]" = weakref.WeakValueDictionary()


def numbered(move: "Move") -> int:
    """A number by which graphs know a move, as long as it lives."""
    number = next(_numbers)
    _moves[number] = move
    return number


@torch.library.custom_op("odesteer::steer", mutates_args=())
def _steer(states: Tensor, number: int) -> Tensor:
    return _moves[number].applied(states)


@_steer.register_fake
def _(states: Tensor, number: int) -> Tensor:
    return torch.empty_like(states)


def moved(states: Tensor, position: str, number: int, run: "Run") -> Any:
    """States `[batch, columns, d]` after the move of that number at a position, traced."""
    batch, length, _ = states.shape
    now, said = run.now, run.said
    if now.counted is not None:
        return _behind(states, position, number, now.counted, said)
    active = now.active(length, states.device)
    columns = steered_columns(position, length, now.past, said)
    if not columns:
        return states
    if position == "last" and said is None and active is not None:
        last = (active * torch.arange(length, device=states.device)).argmax(dim=1)
        where: tuple[Any, ...] = (torch.arange(batch, device=states.device), last)
        new = torch.ops.odesteer.steer(states[where][:, None], number)[:, 0]
        return states.index_put(where, new)
    old = states[:, columns.start : columns.stop]
    new = torch.ops.odesteer.steer(old, number)
    if active is not None:
        new = torch.where(active[:, columns.start : columns.stop, None], new, old)
    return torch.cat([states[:, : columns.start], new, states[:, columns.stop :]], dim=1)


def _behind(states: Tensor, position: str, number: int, past: Tensor, said: int | None) -> Any:
    """The same behind ``past`` columns, a number on the device (of a static cache)."""
    if states.shape[1] > 1:
        raise ModelError(
            "a graph with a static cache that is in use takes single tokens; read the prompt in one"
            " pass, or uncompiled."
        )
    if said is None:
        return states if position == "prompt" else torch.ops.odesteer.steer(states, number)
    new = torch.ops.odesteer.steer(states, number)
    if position == "all":
        return new
    behind = past.to(states.device) >= said - (position == "last")
    return torch.where(~behind if position == "prompt" else behind, new, states)
