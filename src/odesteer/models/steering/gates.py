"""Gates: deciding from the prompt whether a row is steered."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.artifact import Gate
from odesteer.errors import ModelError
from odesteer.models.architecture.hooks import Hook
from odesteer.models.architecture.sites import SiteModule, hidden_states, input_states
from odesteer.models.steering.pass_tracker import PassTracker
from odesteer.models.steering.receipts import ReceiptRecorder


class _GateState(threading.local):
    """What a gate has read and decided in each thread."""

    is_open: Tensor | None = None
    in_prompt = False
    sum: Tensor | None = None
    count: Tensor | None = None
    last: Tensor | None = None


@dataclass(eq=False)
class GateReader:
    """Decides for each row of a batch, where its prompt ends, whether a gate is open.

    Never synchronises with the device. Later passes (chunks of a prompt, generated tokens, the
    whole sequence again without a cache) keep the decision of the prompt; until the prompt has
    ended there is none.
    """

    gate: Gate
    number: int
    site: SiteModule
    tracker: PassTracker
    recorder: ReceiptRecorder | None

    def __post_init__(self) -> None:
        self._threshold = self.gate.threshold
        self._barriers: dict[torch.device, Any] = {}
        self._state = _GateState()
        self._latest: Tensor | None = None  # decision, in whichever thread

    def hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """Forward pre-hooks and forward hooks, with their modules."""
        hook = (self.site.module, self)
        return ([], [hook]) if self.site.is_output else ([hook], [])

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if self.tracker.covers:
            is_output = self.site.is_output
            if len(rest) < 1 + is_output:  # the hook is being removed by another thread
                return
            found = hidden_states(rest[-1]) if is_output else input_states(args, *rest)
            self.read(found.detach())

    def decided(self, batch: int, length: int, device: torch.device) -> Tensor | None:
        """For which rows the gate is open, bool `[batch]`; None while the prompt has not ended.

        Raises `ModelError` if it has ended without having been read.
        """
        state = self._state
        is_open = self._latest if state.is_open is None else state.is_open
        if is_open is None or (state.in_prompt and state.is_open is None):
            if state.in_prompt:
                return None
            raise ModelError(
                "a gate is decided by the prompt, and no prompt has passed through the model since"
                " the steering began; begin it before the prompt."
            )
        if len(is_open) != batch:
            raise ModelError(
                f"a gate was decided for a batch of {len(is_open)} rows, and now there are"
                f" {batch}; begin another steering for another batch."
            )
        return is_open.to(device)

    def read(self, states: Tensor) -> None:
        """Read the states of a pass, `[batch, columns, d]`."""
        current, state = self.tracker.current, self._state
        columns = current.columns("prompt")
        if not columns:
            state.in_prompt = False
            return
        if current.past == 0 or not state.in_prompt:
            state.is_open = state.sum = state.count = state.last = None
        state.in_prompt = True
        prompt = states[:, columns.start : columns.stop]
        active = current.active(states.shape[1], states.device)
        active = None if active is None else active[:, columns.start : columns.stop]
        own = current.in_prompt(len(states), columns, states.device)
        if own is not None:
            active = own if active is None else active & own
        pooled = self._pooled(prompt, active)
        if current.past + columns.stop < max(current.ends):
            return
        barrier = self._barrier(states.device)
        value = barrier.value(pooled)
        below = self.gate.below is not None
        # NaN compares as False: the row is not steered.
        state.is_open = value < self._threshold if below else value > self._threshold
        self._latest = state.is_open
        if self.recorder is not None:
            self.recorder.record_decision(self.number, current.number, value, state.is_open)

    def _pooled(self, states: Tensor, active: Tensor | None) -> Tensor:
        """The activation of each row that the condition is evaluated at, `[batch, d]`."""
        state = self._state
        if self.gate.pool == "last":
            if active is None:
                state.last = states[:, -1]
                return state.last
            last = (active * torch.arange(states.shape[1], device=states.device)).argmax(dim=1)
            found = states[torch.arange(len(states), device=states.device), last]
            if state.last is not None:  # rows that ended in an earlier chunk of the prompt
                found = torch.where(active.any(dim=1)[:, None], found, state.last)
            state.last = found
            return found
        wide = states if states.dtype == torch.float64 else states.float()
        if active is None:
            total = wide.sum(dim=1)
            count = total.new_full((len(total), 1), states.shape[1])
        else:
            total = torch.where(active[..., None], wide, 0.0).sum(dim=1)
            count = active.sum(dim=1, keepdim=True).to(total)
        state.sum = total if state.sum is None else state.sum + total
        state.count = count if state.count is None else state.count + count
        return state.sum / state.count.clamp_min(1)

    def _barrier(self, device: torch.device) -> Any:
        if device not in self._barriers:
            self._barriers[device] = self.gate.condition.method.to(device).barrier  # type: ignore[attr-defined]
        return self._barriers[device]
