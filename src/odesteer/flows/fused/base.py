"""Interface of flows that move a few activations in place, for one step of decoding."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from odesteer.flows.problem import Solution


class FlowInPlace(ABC):
    """Moves activations where they lie as `solve` would, to rounding; prepared for many calls."""

    @abstractmethod
    def over(self, rows: Tensor | None) -> "FlowInPlace":
        """The same for other activations: the ``rows`` `[n]` of a batch (None: all, in order)."""

    @abstractmethod
    def move(self, states: Tensor) -> bool:
        """Move activations `[batch, 1, d]`; False, with nothing done, for types and layouts
        that are not supported."""

    @abstractmethod
    def account(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Time, reached and usable of what was last moved, each `[n]`, as in `Solution`."""

    def solve(self, a: Tensor) -> Solution | None:
        """As `move`, on a copy of activations `[n, 1, d]`; None where `move` does not apply."""
        if a.requires_grad and torch.is_grad_enabled():
            return None
        state = a.detach().clone(memory_format=torch.contiguous_format)
        if not self.move(state):
            return None
        time, reached, usable = self.account()
        return Solution(
            state,
            time[:, None],
            None if reached is None else reached[:, None],
            usable=usable[:, None],
        )
