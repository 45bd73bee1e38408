"""What a solver returns."""

from dataclasses import dataclass, replace

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
        usable: `[...]` bool, False for zero, NaN and infinite activations, which are unchanged;
            None where nobody looked.
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
        """The solution in the type of ``a``, with the rows that are not ``usable`` put back."""
        return replace(
            self,
            state=torch.where(usable[..., None], self.state.to(a.dtype), a),
            time=self.time * usable,
            reached=None if self.reached is None else self.reached & usable,
            usable=usable,
        )
