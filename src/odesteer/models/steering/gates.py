"""Gates: deciding from the prompt whether a row is steered."""

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.artifact import Gate
from odesteer.errors import ModelError
from odesteer.models.architecture.hooks import Hook
from odesteer.models.architecture.sites import SiteModule, hidden_states, input_states
from odesteer.models.steering.forward_pass import PassTracker
from odesteer.models.steering.receipts import ReceiptRecorder


@dataclass(eq=False)
class GateReader:
    """Decides for each row of a batch, where its prompt ends, whether a gate is open.

    Never synchronises with the device. Later passes (chunks of a prompt, generated tokens, the
    whole sequence again without a cache) keep the decision of the prompt; until the prompt has
    ended there is none, and nothing is steered.
    """

    gate: Gate
    number: int
    site: SiteModule
    tracker: PassTracker
    recorder: ReceiptRecorder | None
    _is_open: Tensor | None = field(default=None, init=False)
    _in_prompt: bool = field(default=False, init=False)
    _sum: Tensor | None = field(default=None, init=False)
    _count: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._threshold = self.gate.threshold
        self._barriers: dict[torch.device, Any] = {}

    def hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """Forward pre-hooks and forward hooks, with their modules."""
        hook = (self.site.module, self)
        return ([], [hook]) if self.site.part == "residual" else ([hook], [])

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if threading.get_ident() == self.tracker.thread:
            found = hidden_states(rest[-1]) if len(rest) > 1 else input_states(args, *rest)
            self.read(found.detach())

    def decided(self, batch: int, length: int, device: torch.device) -> Tensor | None:
        """For which rows the gate is open, bool `[batch]`; None while the prompt has not ended.

        Raises `ModelError` if it has ended without having been read.
        """
        if self._is_open is None:
            if self._in_prompt:
                return None
            raise ModelError(
                "a gate is decided by the prompt, and no prompt has passed through the model since"
                " the steering began; begin it before the prompt."
            )
        if len(self._is_open) != batch:
            raise ModelError(
                f"a gate was decided for a batch of {len(self._is_open)} rows, and now there are"
                f" {batch}; begin another steering for another batch."
            )
        return self._is_open.to(device)

    def read(self, states: Tensor) -> None:
        """Read the states of a pass, `[batch, columns, d]`."""
        current, width = self.tracker.current, self.tracker.prompt_columns
        length = states.shape[1]
        columns = self.tracker.columns("prompt", length, "a gate")
        if not columns:
            self._in_prompt = False
            return
        if current.past == 0 or not self._in_prompt:
            self._is_open = self._sum = self._count = None
        self._in_prompt = True
        part = slice(columns.start, columns.stop)
        active = current.active(length, states.device)
        pooled = self._pooled(states[:, part], None if active is None else active[:, part])
        if width is not None and current.past + columns.stop < width:
            return
        barrier = self._barrier(states.device)
        value = barrier.value(pooled)
        below = self.gate.below is not None
        # NaN compares as False: the row is not steered.
        self._is_open = value < self._threshold if below else value > self._threshold
        if self.recorder is not None:
            self.recorder.record_decision(
                self.number, self.tracker.n_passes - 1, value, self._is_open
            )

    def _pooled(self, states: Tensor, active: Tensor | None) -> Tensor:
        """The activation of each row that the condition is evaluated at, `[batch, d]`."""
        if self.gate.pool == "last":
            if active is None:
                return states[:, -1]
            last = (active * torch.arange(states.shape[1], device=states.device)).argmax(dim=1)
            return states[torch.arange(len(states), device=states.device), last]
        wide = states if states.dtype == torch.float64 else states.float()
        if active is None:
            total = wide.sum(dim=1)
            count = total.new_full((len(total), 1), states.shape[1])
        else:
            total = torch.where(active[..., None], wide, 0.0).sum(dim=1)
            count = active.sum(dim=1, keepdim=True).to(total)
        self._sum = total if self._sum is None else self._sum + total
        self._count = count if self._count is None else self._count + count
        return self._sum / self._count.clamp_min(1)

    def _barrier(self, device: torch.device) -> Any:
        if device not in self._barriers:
            self._barriers[device] = self.gate.condition.method.to(device).barrier  # type: ignore[attr-defined]
        return self._barriers[device]
