"""The forward hooks that steer: all interventions at one site."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.artifact.positions import SteerPosition
from odesteer.errors import ModelError
from odesteer.flows import FlowInPlace
from odesteer.models.architecture.hooks import Hook
from odesteer.models.architecture.sites import (
    SiteModule,
    hidden_states,
    input_states,
    raise_bypassed,
    replace_hidden_states,
    replace_input_states,
)
from odesteer.models.steering.compiled import apply_traced
from odesteer.models.steering.intervention import Intervention
from odesteer.models.steering.pass_tracker import PassTracker
from odesteer.models.steering.receipts import ReceiptRecorder


class ThreadCount(threading.local):
    """Calls of the hooks of a site in each thread, and how many of them the check has seen."""

    n = 0
    n_seen = 0


@dataclass(eq=False)
class SiteInterventions:
    """All interventions at one site, one after the other."""

    tracker: PassTracker
    site: SiteModule
    interventions: Sequence[Intervention]
    recorder: ReceiptRecorder | None

    def __post_init__(self) -> None:
        # By batch size, where all interventions can be applied in place without being recorded.
        self._steps: dict[int, list[tuple[Intervention, FlowInPlace]]] = {}
        self.calls = ThreadCount()

    def hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """Forward pre-hooks and forward hooks, with their modules."""
        if self.site.is_output:
            return [], [(self.site.module, _ModuleOutputHook(self))]
        return [(self.site.module, _ModuleInputHook(self))], []

    def apply(self, states: Tensor, in_place: bool) -> Tensor:
        """The steered states `[batch, columns, d]`; ``states`` itself if nothing was moved."""
        self.calls.n += 1
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
        own_thread = self.tracker.thread_state.active
        for intervention in self.interventions:
            states = apply_traced(
                states,
                intervention.position,
                intervention.number,
                self.tracker.traced,
                is_steered_thread=own_thread,
            )
        return states

    def _keep_step(self, states: Tensor) -> None:
        """Keep the in-place forms for batches like ``states`` `[batch, 1, d]`, if all have one."""
        flows = [
            intervention.prepared_rows(states).in_place
            for intervention in self.interventions
            if intervention.gate is None and intervention.position.is_plain
        ]
        known = [flow for flow in flows if flow is not None]
        if len(known) == len(self.interventions):
            self._steps[len(states)] = list(zip(self.interventions, known, strict=True))

    def apply_step(self, states: Tensor) -> bool:
        """Steer a decoding step `[batch, 1, d]` in place; False, with nothing done, if not."""
        steps = self._steps.get(len(states))
        current = self.tracker.current
        if steps is None or not current.is_generated:
            return False
        for intervention, flow in steps:
            if intervention.position.tokens != "prompt" and not flow.move(states):
                return False
        self.calls.n += 1
        return True

    def _apply_one(self, states: Tensor, intervention: Intervention, in_place: bool) -> Tensor:
        current = self.tracker.current
        batch, length, _ = states.shape
        columns = intervention.columns(self.tracker)
        if not columns:
            return states
        is_open = None
        if intervention.gate is not None:
            is_open = intervention.gate.decided(batch, length, states.device)
            if is_open is None:
                raise ModelError(
                    "a gate is decided at the end of the prompt, and a part of the prompt that is"
                    " to be steered came in a pass before; read the prompt in one pass, or steer"
                    " at position 'last' or 'generated'."
                )
        prepared_rows = intervention.prepared_rows(states)
        rows = prepared_rows.rows
        where, column, mask = self._where(intervention.position, columns, states, rows)
        x = states[where]
        if is_open is not None:
            is_open = (is_open if rows is None else is_open[rows])[:, None].expand(x.shape[:-1])
            mask = is_open if mask is None else mask & is_open
        solution = prepared_rows.prepared.solve(x)
        new = solution.state if mask is None else torch.where(mask[..., None], solution.state, x)
        if self.recorder is not None:
            before, after = (_barrier_value(intervention.barrier, a) for a in (x, new))
            row_indices = len(x) if rows is None else rows
            past = current.past
            absolute = (
                range(past + column.start, past + column.stop)
                if isinstance(column, range)
                else past + column
            )
            at = (self.site, current.number, row_indices, absolute)
            self.recorder.record(*at, mask, solution, before, after)
        target = states if in_place else states.clone()
        target[where] = new
        return target

    def _where(
        self, position: SteerPosition, columns: range, states: Tensor, rows: Tensor | None
    ) -> tuple[tuple[Any, ...], Tensor | range, Tensor | None]:
        """The index of what is moved, its columns (a range, or `[rows, c]`), and which of it."""
        current, device = self.tracker.current, states.device
        batch, length, _ = states.shape
        phase = None if position.phase is None else current.in_phase(position.phase, device)
        tokens = current.active(length, device)
        end = current.ends[0]
        has_last = position.tokens == "last" and position.start == 0 and len(current.ends) == 1
        if has_last and tokens is not None and current.past < end <= current.past + length:
            # The last token of each prompt, on whichever side the padding is, and what follows.
            last, found = current.last_of_prompt(tokens, f"position {str(position)!r}")
            follows = range(end - current.past, max(columns.stop, end - current.past))
            some = torch.arange(follows.start, follows.stop, device=device)
            column = torch.cat([last[:, None], some.expand(batch, -1)], dim=1)
            chosen: Tensor | None = torch.cat(
                [found[:, None], tokens[:, follows.start : follows.stop]], dim=1
            )
            if not follows and not current.past:
                chosen = None  # the last tokens of whole prompts are no padding
            if phase is not None:
                own = phase.gather(1, column)
                chosen = own if chosen is None else chosen & own
            every = torch.arange(batch, device=device) if rows is None else rows
            if rows is not None:
                column, chosen = column[rows], None if chosen is None else chosen[rows]
            return (every[:, None], column), column, chosen
        some_columns = slice(columns.start, columns.stop)
        mask = None if tokens is None else tokens[:, some_columns]
        limits = []
        if position.tokens == "prompt":
            limits.append(current.in_prompt(batch, columns, device))
        elif position.is_behind_prompt:
            limits.append(current.behind(position, batch, columns, device))
        if phase is not None:
            limits.append(phase[:, some_columns])
        for limit in limits:
            if limit is not None:
                mask = limit if mask is None else mask & limit
        if mask is not None and rows is not None:
            mask = mask[rows]
        return (slice(None) if rows is None else rows, some_columns), columns, mask


@dataclass(eq=False)
class _ModuleOutputHook:
    """Steers the output of a module."""

    interventions: SiteInterventions

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            states = hidden_states(rest[-1])
            return replace_hidden_states(rest[-1], self.interventions.apply_traced(states))
        if not self.interventions.tracker.covers:
            return None
        if len(rest) < 2:  # the hook is being removed by another thread
            return None
        kwargs, output = rest
        states = hidden_states(output)
        in_place = not (states.requires_grad and torch.is_grad_enabled())
        for given in (*args, *kwargs.values()):
            if given is states:
                in_place = False
        if in_place and states.shape[1] == 1 and self.interventions.apply_step(states):
            return None
        moved = self.interventions.apply(states, in_place)
        return None if moved is states else replace_hidden_states(output, moved)


@dataclass(eq=False)
class _ModuleInputHook:
    """Steers the input of a module."""

    interventions: SiteInterventions

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            (kwargs,) = rest
            states = input_states(args, kwargs)
            return replace_input_states(args, kwargs, self.interventions.apply_traced(states))
        if not self.interventions.tracker.covers:
            return None
        if not rest:  # the hook is being removed by another thread
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

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if self.interventions.tracker.compiled and torch.compiler.is_compiling():
            return
        if not self.interventions.tracker.covers:
            return
        calls = self.interventions.calls
        if calls.n == calls.n_seen:
            raise_bypassed(self.interventions.site)
        calls.n_seen = calls.n


def _barrier_value(barrier: Any, a: Tensor) -> Tensor | None:
    return None if barrier is None else barrier.value(a.detach())
