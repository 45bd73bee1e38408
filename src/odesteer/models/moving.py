"""The hooks that move activations while a model runs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.flows import FlowInPlace
from odesteer.models import traced
from odesteer.models.hooks import Hook
from odesteer.models.move import Move
from odesteer.models.passes import Run
from odesteer.models.places import Place
from odesteer.models.receipt import Ledger
from odesteer.models.states import given_states, hidden_states, with_states


@dataclass(eq=False)
class Mover:
    """All moves at one place, one after the other."""

    run: Run
    place: Place
    moves: Sequence[Move]
    ledger: Ledger | None
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # By size of batch, where all moves can be made unseen and where the activations lie.
        self._steps: dict[int, list[tuple[Move, FlowInPlace]]] = {}

    def hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """What to call before and after which module."""
        if self.place.part == "residual":
            return [], [(self.place.module, _OutputHook(self))]
        return [(self.place.module, _InputHook(self))], []

    def moved(self, states: Tensor, in_place: bool) -> Tensor:
        """The states `[batch, columns, d]` after all moves; ``states`` itself if none moved."""
        self.calls += 1
        if states.shape[-1] != self.place.width:
            raise ModelError(
                f"activations {self.place.where} are {states.shape[-1]} wide where"
                f" {self.place.width} was expected; this architecture is not supported."
            )
        moved = states
        for move in self.moves:
            moved = self._moved(moved, move, in_place)
        if states.shape[1] == 1 and self.ledger is None:
            self._note_steps(states)
        return moved

    def traced(self, states: Tensor) -> Tensor:
        """The same while a graph is made."""
        if not self.run.here.active:
            return states
        for move in self.moves:
            states = traced.moved(states, move.position, move.number, self.run)
        return states

    def _note_steps(self, states: Tensor) -> None:
        """Remember how batches like ``states`` `[batch, 1, d]` move where they lie, if they can."""
        flows = [move.part(states).in_place for move in self.moves if move.gate is None]
        known = [flow for flow in flows if flow is not None]
        if len(known) == len(self.moves):
            self._steps[len(states)] = list(zip(self.moves, known, strict=True))

    def stepped(self, states: Tensor) -> bool:
        """Make a step of decoding, `[batch, 1, d]`, where the activations lie.

        False, with nothing done, where it is not known how.
        """
        steps = self._steps.get(len(states))
        if steps is None:
            return False
        run = self.run
        for move, flow in steps:
            # The one column is the last, unless somebody said that the prompt goes on.
            last = run.said is None and move.position in ("last", "all")
            if (last or move.columns(run, 1)) and not flow.move(states):
                return False
        self.calls += 1
        return True

    def _moved(self, states: Tensor, move: Move, in_place: bool) -> Tensor:
        now, width = self.run.now, self.run.said
        batch, length, _ = states.shape
        columns = move.columns(self.run, length)
        if not columns:
            return states
        is_open = None
        if move.gate is not None:
            is_open = move.gate.decided(batch, length, states.device)
            if is_open is None:
                return states
        part = move.part(states)
        rows = part.rows
        active = now.active(length, states.device)
        if rows is not None and active is not None:
            active = active[rows]
        where: tuple[Any, ...]
        if move.position == "last" and width is None and active is not None:
            # The last token of each row, wherever the padding is. Found without waiting.
            numbers = torch.arange(length, device=states.device)
            last = (active * numbers).argmax(dim=1, keepdim=True)
            every = torch.arange(batch, device=states.device) if rows is None else rows
            where, mask = (every[:, None], last), None
            place: Tensor | range = last + now.past
        else:
            some = slice(columns.start, columns.stop)
            where = (slice(None) if rows is None else rows, some)
            place = range(now.past + columns.start, now.past + columns.stop)
            mask = None if active is None else active[:, some]
        x = states[where]
        if is_open is not None:
            is_open = (is_open if rows is None else is_open[rows])[:, None].expand(x.shape[:-1])
            mask = is_open if mask is None else mask & is_open
        solution = part.prepared.solve(x)
        new = solution.state if mask is None else torch.where(mask[..., None], solution.state, x)
        if self.ledger is not None:
            before, after = (_barrier_value(move.barrier, a) for a in (x, new))
            who = len(x) if rows is None else rows
            at = (self.place, self.run.n_passes - 1, who, place)
            self.ledger.enter(*at, mask, solution, before, after)
        target = states if in_place else states.clone()
        target[where] = new
        return target


@dataclass(eq=False)
class _OutputHook:
    """Moves what a module returns."""

    mover: Mover

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.mover.run.compiled and torch.compiler.is_compiling():
            states = hidden_states(rest[-1])
            return _replaced(rest[-1], states, self.mover.traced(states))
        if threading.get_ident() != self.mover.run.thread:
            return None
        kwargs, output = rest
        states = hidden_states(output)
        in_place = not (states.requires_grad and torch.is_grad_enabled())
        for given in (*args, *kwargs.values()):
            if given is states:
                in_place = False
        if in_place and states.shape[1] == 1 and self.mover.stepped(states):
            return None
        return _replaced(output, states, self.mover.moved(states, in_place))


def _replaced(output: Any, states: Tensor, moved: Tensor) -> Any:
    """What a module returns, with its states moved; None where they are the same."""
    if moved is states:
        return None
    return moved if isinstance(output, Tensor) else (moved, *output[1:])


@dataclass(eq=False)
class _InputHook:
    """Moves what a module is given."""

    mover: Mover

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.mover.run.compiled and torch.compiler.is_compiling():
            (kwargs,) = rest
            states = given_states(args, kwargs)
            return with_states(args, kwargs, self.mover.traced(states))
        if threading.get_ident() != self.mover.run.thread:
            return None
        (kwargs,) = rest
        states = given_states(args, kwargs)
        # Never in place: what is given to the module may be in use elsewhere too.
        moved = self.mover.moved(states, in_place=False)
        return None if moved is states else with_states(args, kwargs, moved)


@dataclass(eq=False)
class Witness:
    """Sees to it that the heads of a layer that runs are really moved.

    Called after the decoder layer. Fused kernels may compute an output projection without calling
    its module; then nothing would be steered, and nobody would know.
    """

    mover: Mover
    _seen: int = field(default=0, init=False)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if self.mover.run.compiled and torch.compiler.is_compiling():
            return
        if threading.get_ident() != self.mover.run.thread:
            return
        if self.mover.calls == self._seen:
            raise_bypassed(self.mover.place)
        self._seen = self.mover.calls


def raise_bypassed(place: Place) -> None:
    """Raise the `ModelError` for a place that no activations came through."""
    if place.part == "residual":
        raise ModelError(f"layer {place.layer} did not run; this model skips layers.")
    raise ModelError(
        f"layer {place.layer} ran without calling the output projection of its attention"
        f" ({type(place.module).__name__}), so its heads cannot be looked at or moved; turn off"
        " fused kernels, or name another module with SteeredModel(model, tokenizer, heads=...)."
    )


def _barrier_value(barrier: Any, a: Tensor) -> Tensor | None:
    return None if barrier is None else barrier.value(a.detach())
