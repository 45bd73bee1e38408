"""Where a flow stops."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ReachValue:
    """Stop each activation at the first time its barrier reaches a value.

    A flow that steers up (positive T) stops at h ≥ ``value``, one that steers down at h ≤
    ``value``; activations that are there at the start do not move.

    Attributes:
        value: τ in nats, a number or a tensor that broadcasts against the batch shape.
    """

    value: float | Tensor

    def holds(self, h: Tensor, sign: Tensor) -> Tensor:
        """Whether values ``h`` `[...]` are past τ in the direction of ``sign`` `[...]`."""
        return sign * (h - self.value) >= 0

    def excess(self, h: Tensor, sign: Tensor) -> Tensor:
        """How far past τ, in nats; negative before it."""
        return sign * (h - self.value)
