"""ODESteer in one Euler step (Zhao et al., ICLR 2026, arXiv 2602.17560, an ablation)."""

from typing import ClassVar

from odesteer.barriers import Barrier, Fitting, PolynomialBarrier, TensorSketchBarrier
from odesteer.flows import Euclidean, Euler, Metric
from odesteer.methods.amount import Amount
from odesteer.methods.odesteer import ODESteer


class OneStep(ODESteer):
    """a + T·G∇h(a)/‖G∇h(a)‖: the field of ODESteer in one explicit Euler step.

    ``T`` is the length of the step, ``strength`` the same in class deviations.
    ``level`` moves along the ray from ``a`` until h reaches the level, or to the longest step
    allowed. The field is evaluated at ``a`` alone, unlike in ODESteer.

    Parameters:
        barrier: the barrier to climb; after `fit`, the fitted one.
        metric: G, see `Metric`; after `fit`, the fitted one.
        amount: default; a number is a strength, the length of the step in class
            deviations. The paper's form is a T, in activation units.
        max_strength: the longest step to a level, in class deviations.
    """

    quantities: ClassVar[tuple[str, ...]] = ("strength", "level", "T")
    dynamics: ClassVar[str] = "a' = a + T·G∇h(a)/‖G∇h(a)‖"
    solver_summary: ClassVar[str] = "one explicit Euler step"
    cost: ClassVar[str] = "O(d r), r the rank of h"
    reference: ClassVar[str] = "Zhao et al., ICLR 2026, arXiv 2602.17560, the one-step form"

    solver = Euler(1)

    amount_words: ClassVar[tuple[str, ...]] = ("strength", "T")

    def __init__(
        self,
        barrier: Barrier = PolynomialBarrier(),
        metric: Metric = Euclidean(),
        amount: Amount | float | None = 1.5,
        max_strength: float = 10.0,
    ) -> None:
        self.barrier = barrier
        self.metric = metric
        self.amount = amount
        self.max_strength = max_strength

    @classmethod
    def paper(cls, T: float = 5.0, seed: int = 0) -> "OneStep":
        """The barrier of `ODESteer.paper` and a fixed T in activation units."""
        barrier = TensorSketchBarrier(fitting=Fitting(seed=seed), class_weight=None)
        return cls(barrier=barrier, amount=Amount("T", T))
