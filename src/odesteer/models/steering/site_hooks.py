"""The forward hooks that steer: all interventions at one site."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.flows import FlowInPlace
from odesteer.models.architecture.hooks import Hook
from odesteer.models.architecture.sites import (
    SiteModule,
    hidden_states,
    input_states,
    raise_bypassed,
    replace_input_states,
)
from odesteer.models.steering.compiled import apply_traced
from odesteer.models.steering.forward_pass import PassTracker
from odesteer.models.steering.intervention import Intervention
from odesteer.models.steering.receipts import ReceiptRecorder


@dataclass(eq=False)
class SiteInterventions:
    """All interventions at one site, one after the other."""

    tracker: PassTracker
    site: SiteModule
    interventions: Sequence[Intervention]
    recorder: ReceiptRecorder | None
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # By batch size, where all interventions can be applied in place without being recorded.
        self._steps: dict[int, list[tuple[Intervention, FlowInPlace]]] = {}

    def hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """Forward pre-hooks and forward hooks, with their modules."""
        if self.site.part == "residual":
            return [], [(self.site.module, _ModuleOutputHook(self))]
        return [(self.site.module, _ModuleInputHook(self))], []

    def apply(self, states: Tensor, in_place: bool) -> Tensor:
        """The steered states `[batch, columns, d]`; ``states`` itself if nothing was moved."""
        self.calls += 1
        if states.shape[-1] != self.site.width:
            raise ModelError(
                f"activations {self.site.where} are {states.shape[-1]} wide where"
                f" {self.site.width} was expected; this architecture is not supported."
            )
        moved = states
        for intervention in self.interventions:
            moved = self._apply_one(moved, intervention, in_place)
        if states.shape[1] == 1 and self.recorder is None:
            self._keep_step(states)
        return moved

    def apply_traced(self, states: Tensor) -> Tensor:
        """The same while a graph is traced."""
        if not self.tracker.thread_state.active:
            return states
        for intervention in self.interventions:
            states = apply_traced(states, intervention.position, intervention.number, self.tracker)
        return states

    def _keep_step(self, states: Tensor) -> None:
        """Keep the in-place forms for batches like ``states`` `[batch, 1, d]`, if all have one."""
        flows = [
            intervention.prepared_rows(states).in_place
            for intervention in self.interventions
            if intervention.gate is None
        ]
        known = [flow for flow in flows if flow is not None]
        if len(known) == len(self.interventions):
            self._steps[len(states)] = list(zip(self.interventions, known, strict=True))

    def apply_step(self, states: Tensor) -> bool:
        """Steer a decoding step `[batch, 1, d]` in place; False, with nothing done, if not."""
        steps = self._steps.get(len(states))
        if steps is None:
            return False
        tracker = self.tracker
        for intervention, flow in steps:
            # The single column is the last, unless the prompt is known to go on.
            last = tracker.prompt_columns is None and intervention.position in ("last", "all")
            if (last or intervention.columns(tracker, 1)) and not flow.move(states):
                return False
        self.calls += 1
        return True

    def _apply_one(self, states: Tensor, intervention: Intervention, in_place: bool) -> Tensor:
        current, width = self.tracker.current, self.tracker.prompt_columns
        batch, length, _ = states.shape
        columns = intervention.columns(self.tracker, length)
        if not columns:
            return states
        is_open = None
        if intervention.gate is not None:
            is_open = intervention.gate.decided(batch, length, states.device)
            if is_open is None:
                return states
        prepared_rows = intervention.prepared_rows(states)
        rows = prepared_rows.rows
        active = current.active(length, states.device)
        if rows is not None and active is not None:
            active = active[rows]
        where: tuple[Any, ...]
        if intervention.position == "last" and width is None and active is not None:
            # The last token of each row, on whichever side the padding is.
            numbers = torch.arange(length, device=states.device)
            last = (active * numbers).argmax(dim=1, keepdim=True)
            every = torch.arange(batch, device=states.device) if rows is None else rows
            where, mask = (every[:, None], last), None
            column: Tensor | range = last + current.past
        else:
            some = slice(columns.start, columns.stop)
            where = (slice(None) if rows is None else rows, some)
            column = range(current.past + columns.start, current.past + columns.stop)
            mask = None if active is None else active[:, some]
        x = states[where]
        if is_open is not None:
            is_open = (is_open if rows is None else is_open[rows])[:, None].expand(x.shape[:-1])
            mask = is_open if mask is None else mask & is_open
        solution = prepared_rows.prepared.solve(x)
        new = solution.state if mask is None else torch.where(mask[..., None], solution.state, x)
        if self.recorder is not None:
            before, after = (_barrier_value(intervention.barrier, a) for a in (x, new))
            row_indices = len(x) if rows is None else rows
            at = (self.site, self.tracker.n_passes - 1, row_indices, column)
            self.recorder.record(*at, mask, solution, before, after)
        target = states if in_place else states.clone()
        target[where] = new
        return target


@dataclass(eq=False)
class _ModuleOutputHook:
    """Steers the output of a module."""

    interventions: SiteInterventions

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            states = hidden_states(rest[-1])
            return _replace_states(rest[-1], states, self.interventions.apply_traced(states))
        if threading.get_ident() != self.interventions.tracker.thread:
            return None
        kwargs, output = rest
        states = hidden_states(output)
        in_place = not (states.requires_grad and torch.is_grad_enabled())
        for given in (*args, *kwargs.values()):
            if given is states:
                in_place = False
        if in_place and states.shape[1] == 1 and self.interventions.apply_step(states):
            return None
        return _replace_states(output, states, self.interventions.apply(states, in_place))


def _replace_states(output: Any, states: Tensor, moved: Tensor) -> Any:
    """The output of a module with its states replaced; None where nothing was moved."""
    if moved is states:
        return None
    return moved if isinstance(output, Tensor) else (moved, *output[1:])


@dataclass(eq=False)
class _ModuleInputHook:
    """Steers the input of a module."""

    interventions: SiteInterventions

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            (kwargs,) = rest
            states = input_states(args, kwargs)
            return replace_input_states(args, kwargs, self.interventions.apply_traced(states))
        if threading.get_ident() != self.interventions.tracker.thread:
            return None
        (kwargs,) = rest
        states = input_states(args, kwargs)
        # Never in place: the input may be used elsewhere too.
        moved = self.interventions.apply(states, in_place=False)
        return None if moved is states else replace_input_states(args, kwargs, moved)


@dataclass(eq=False)
class BypassCheck:
    """Checks after a decoder layer that the heads of its attention were steered.

    Fused kernels may compute an output projection without calling its module, so that its hooks do
    not run.
    """

    interventions: SiteInterventions
    _seen: int = field(default=0, init=False)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            return
        if threading.get_ident() != self.interventions.tracker.thread:
            return
        if self.interventions.calls == self._seen:
            raise_bypassed(self.interventions.site)
        self._seen = self.interventions.calls


def _barrier_value(barrier: Any, a: Tensor) -> Tensor | None:
    return None if barrier is None else barrier.value(a.detach())
