"""ODESteer: steering as a gradient flow of a barrier function.

Zhao et al., ICLR 2026, arXiv 2602.17560.
"""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import (
    Barrier,
    Contrast,
    Fitting,
    PolynomialBarrier,
    Standardized,
    TensorSketchBarrier,
)
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import (
    Covariance,
    Euclidean,
    Euler,
    GradientField,
    Metric,
    ReachValue,
    Solution,
    Solver,
    Trajectory,
    flow_in_place,
    solve,
    trajectory,
)
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method, Prepared


class ODESteer(Method):
    """Moves an activation along v = G∇h/‖G∇h‖ until the barrier h reaches a level.

    Parameters:
        barrier: the barrier to climb; after `fit`, the fitted one.
        solver: how the flow is solved.
        metric: G, see `Metric`; after `fit`, the fitted one.
        amount: default; a number is a level of the barrier (0 the decision boundary, 1 the 90 %
            quantile of h over positives).
        max_strength: the cap on the arc length of a flow to a level, in class
            deviations.
    """

    quantities: ClassVar[tuple[str, ...]] = ("level", "T", "strength")
    dynamics: ClassVar[str] = "da/dt = G∇h/‖G∇h‖, up to a level or for a time"
    barrier_summary: ClassVar[str] = (
        "log-density ratio h; quadratic by default, in a/‖a‖ where that tells the classes apart"
    )
    solver_summary: ClassVar[str] = "explicit Euler, 10 steps; any other solver"
    keeps_norm: ClassVar[bool] = False
    cost: ClassVar[str] = "O(d r), r the rank of h, for any number of steps"
    reference: ClassVar[str] = "Zhao et al., ICLR 2026, arXiv 2602.17560"

    barrier = FittedPart[Barrier]()
    barrier_: Barrier
    metric = FittedPart[Metric]()
    metric_: Metric
    amount_words: ClassVar[tuple[str, ...]] = ("level", "T")

    def __init__(
        self,
        barrier: Barrier = PolynomialBarrier(),
        solver: Solver = Euler(),
        metric: Metric = Euclidean(),
        amount: Amount | float | None = 1.5,
        max_strength: float = 10.0,
    ) -> None:
        self.barrier = barrier
        self.solver = solver
        self.metric = metric
        self.amount = amount
        self.max_strength = max_strength

    @classmethod
    def standardized(cls, C: float = 100.0, amount: Amount | float | None = 1.5) -> "ODESteer":
        """A barrier that sees what a standardised linear probe sees, climbed in the metric Σ.

        For activations in which the default is far behind a linear probe. A sharp barrier points
        along directions in which activations hardly vary; the metric turns the flow to those in
        which they do. It has no compiled form, and its file holds Σ, `[d, d]`.
        """
        barrier = PolynomialBarrier(C=C, inputs=Standardized())
        return cls(barrier=barrier, metric=Covariance(), amount=amount)

    @classmethod
    def paper(cls, T: float = 5.0, seed: int = 0) -> "ODESteer":
        """The published setting: TensorSketch of degree 2 with 8,000 features, γ = 0.1, c₀ = 1,
        C = 1, ten Euler steps, a fixed T in activation units (about 5 for 7B models).
        """
        return cls(
            barrier=TensorSketchBarrier(fitting=Fitting(seed=seed), class_weight=None),
            solver=Euler(10),
            amount=Amount("T", T),
        )

    @property
    def field(self) -> GradientField:
        """The vector field of unit speed."""
        self.check_fitted()
        return GradientField(self.barrier, self.metric)

    def trajectory(
        self,
        a: Tensor,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
    ) -> Trajectory:
        """The path of activations `[..., d]`: times, states, barrier values, speeds.

        Raises `InvalidInputError` for activations that are zero or not finite.
        """
        amount = self._checked(a, Amount.of(level=level, T=T, strength=strength))
        a, usable = self._usable(a)
        if not bool(usable.all()):
            raise InvalidInputError(
                f"{int((~usable).sum())} of {usable.numel()} activations are zero or not finite"
                " and have no trajectory; leave them out."
            )
        duration, until = self._how_far(amount)
        return trajectory(self.field, a, duration, self.solver, until=until)

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        self.solver.check()
        self.metric_ = self.metric.clone().fit(contrast.positive, contrast.negative)
        self.barrier_ = self.barrier.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        duration, until = self._how_far(amount)
        return solve(self.field, a, duration, self.solver, until=until)

    def prepared(self, amount: Amount, a: Tensor) -> Prepared:
        prepared = super().prepared(amount, a)
        if type(self)._solve is ODESteer._solve:
            how_far = self._how_far(prepared.amount)
            prepared.in_place = flow_in_place(self.field, self.solver, *how_far, len(a), a.device)
        return prepared

    def _how_far(self, amount: Amount) -> tuple[float | Tensor, ReachValue | None]:
        """Signed duration, in activation units, and the event."""
        if amount.quantity == "T":
            return amount.value, None
        if amount.quantity == "strength":
            return amount.value * self.strength_unit, None
        cap = self.max_strength * self.strength_unit
        level = amount.value
        until = ReachValue(self.barrier.threshold(level))
        if isinstance(level, Tensor):
            return torch.where(level >= 0, cap, -cap), until
        return (cap if level >= 0 else -cap), until
