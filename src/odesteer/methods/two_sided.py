"""A barrier held at a level from both sides: no more of an attribute, and no less."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Barrier, PolynomialBarrier
from odesteer.flows import Euclidean, Euler, Metric, ReachValue, Solution, Solver, solve
from odesteer.methods.amount import Amount
from odesteer.methods.odesteer import ODESteer


class TwoSided(ODESteer):
    """Moves an activation along ±G∇h/‖G∇h‖ until h has the value of a level, from either side.

    `ODESteer` lets activations stay that are past the level; this brings them back to it. With a
    linear barrier it is directional ablation with a target (`Ablation`): a projection, and
    idempotent. ``T`` and ``strength`` follow the field for a time, as in `ODESteer`.

    Parameters:
        barrier: the barrier to hold; after `fit`, the fitted one.
        solver: how the flow is solved.
        metric: G, see `Metric`; after `fit`, the fitted one.
        amount: default; a number is a level of the barrier (0 the decision boundary, 1 the 90 %
            quantile of h over positives).
        max_strength: the cap on the arc length of a flow to a level, in class
            deviations.
    """

    dynamics: ClassVar[str] = "da/dt = ±G∇h/‖G∇h‖, to a level from both sides"
    barrier_summary: ClassVar[str] = (
        "any; quadratic by default, in a/‖a‖ where that tells the classes apart"
    )
    reference: ClassVar[str] = (
        "this project; linear: Arditi et al., arXiv 2406.11717, Marshall et al., 2411.09003"
    )

    def __init__(
        self,
        barrier: Barrier = PolynomialBarrier(),
        solver: Solver = Euler(),
        metric: Metric = Euclidean(),
        amount: Amount | float | None = 0.0,
        max_strength: float = 10.0,
    ) -> None:
        super().__init__(barrier, solver, metric, amount, max_strength)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        if amount.quantity != "level":
            return super()._solve(a, amount)
        value = torch.as_tensor(
            self.barrier.threshold(amount.value), dtype=a.dtype, device=a.device
        )
        cap = self.max_strength * self.strength_unit
        duration = torch.where(self.barrier.value(a) <= value, cap, -cap)
        return solve(self.field, a, duration, self.solver, until=ReachValue(value))
