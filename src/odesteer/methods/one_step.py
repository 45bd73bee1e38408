"""ODESteer in one Euler step (Zhao et al., ICLR 2026, arXiv 2602.17560, an ablation)."""

from typing import ClassVar

from odesteer.barriers import Barrier, PolynomialBarrier, TensorSketchBarrier
from odesteer.errors import InvalidInputError
from odesteer.flows import Euclidean, Euler, Metric
from odesteer.methods.amount import Amount
from odesteer.methods.odesteer import ODESteer


class OneStep(ODESteer):
    """a + T·G∇h(a)/‖G∇h(a)‖: the field of ODESteer in one explicit Euler step.

    ``T`` is the length of the step, ``strength`` the same in mean activation norms. ``level``
    moves along the ray from ``a`` until h reaches the level, or to the longest step allowed. The
    field is evaluated at ``a`` alone, unlike in ODESteer.

    Parameters:
        barrier: the barrier to climb; after `fit`, the fitted one.
        metric: G, see `Metric`; after `fit`, the fitted one.
        strength: default length of the step, in mean activation norms; None for a T.
        T: the same in activation units, the paper's form.
        max_strength: the longest step to a level, in mean activation norms.
    """

    quantities: ClassVar[tuple[str, ...]] = ("strength", "level", "T")
    dynamics: ClassVar[str] = "a' = a + T·G∇h(a)/‖G∇h(a)‖"
    solver_summary: ClassVar[str] = "one explicit Euler step"
    cost: ClassVar[str] = "O(d r), r the rank of h"
    reference: ClassVar[str] = "Zhao et al., ICLR 2026, arXiv 2602.17560, the one-step form"

    solver = Euler(1)

    def __init__(
        self,
        barrier: Barrier = PolynomialBarrier(),
        metric: Metric = Euclidean(),
        strength: float | None = 0.5,
        T: float | None = None,
        max_strength: float = 1.0,
    ) -> None:
        self.barrier = barrier
        self.metric = metric
        self.strength = strength
        self.T = T
        self.max_strength = max_strength

    @classmethod
    def paper(cls, T: float = 5.0, seed: int = 0) -> "OneStep":
        """The barrier of `ODESteer.paper` and a fixed T in activation units."""
        return cls(barrier=TensorSketchBarrier(seed=seed, class_weight=None), strength=None, T=T)

    @property
    def default_amount(self) -> Amount:
        amount = Amount.of(strength=self.strength, T=self.T)
        if amount is None:
            raise InvalidInputError("OneStep has neither a strength nor a T; set one of them.")
        return amount
