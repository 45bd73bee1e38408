"""What a solver returns."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Activations after a flow, and what happened to each of them.

    Attributes:
        state: `[..., d]`, the activations at the end.
        time: `[...]`, the time travelled by each; arc length in activation units for unit fields.
        reached: `[...]` bool, whether the event (a value of the barrier) holds at the end; None
            where there was no event. Activations that ran to the cap instead are False.
        rejected: `[...]` int, steps that a step control rejected; None without one.
        usable: `[...]` bool, False for activations that are zero, NaN or infinite, or whose result
            does not fit their type; they are unchanged. None where nobody looked.
    """

    state: Tensor
    time: Tensor
    reached: Tensor | None = None
    rejected: Tensor | None = None
    usable: Tensor | None = None

    def reshape(self, shape: torch.Size) -> "Solution":
        """The same with batch dimensions ``shape``."""
        return Solution(
            self.state.reshape(*shape, self.state.shape[-1]),
            self.time.reshape(shape),
            None if self.reached is None else self.reached.reshape(shape),
            None if self.rejected is None else self.rejected.reshape(shape),
            None if self.usable is None else self.usable.reshape(shape),
        )

    def keep_unusable(self, a: Tensor, usable: Tensor) -> "Solution":
        """The solution in the type of ``a``, with the rows that are not ``usable`` put back.

        So are rows that are not finite in that type.
        """
        state = self.state.to(a.dtype)
        usable = usable & torch.isfinite(state).all(dim=-1)
        return Solution(
            state=torch.where(usable[..., None], state, a),
            time=torch.where(usable, self.time, 0.0),
            reached=None if self.reached is None else self.reached & usable,
            rejected=None if self.rejected is None else torch.where(usable, self.rejected, 0),
            usable=usable,
        )
