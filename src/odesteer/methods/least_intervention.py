"""Least intervention: the shortest correction of an activation that satisfies a barrier."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Barrier, Contrast, MinimumBarrier, PolynomialBarrier
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Euclidean, GradientField, Metric, Solution
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method
from odesteer.untrusted import is_integer


class LeastIntervention(Method):
    """The nearest activation a' with h(a') ≥ τ; what satisfies the barrier already stays.

    min (a' - a)ᵀG⁻¹(a' - a) subject to h(a') ≥ τ is solved by sequential linearisation: at the
    current x the constraint is h(x) + ∇h(x)·(a' - x) = τ, whose nearest solution is a' = a +
    λG∇h(x) with λ = (τ - h(x) + ∇h(x)·(x - a)) / ∇hᵀG∇h. For a linear barrier the first step is
    exact; in general the result is a stationary point of the distance, and no longer than the path
    of a flow to the same level. Several barriers: a `MinimumBarrier` with a temperature merges
    them; of two without a temperature, each linearisation is solved as two half-spaces. Control
    barrier functions take this correction at each step; here it is taken at each token by itself.

    ``level`` is τ in units of the examples. A negative level asks for h(a') ≤ τ.

    Parameters:
        barrier: the barrier to satisfy; after `fit`, the fitted one.
        metric: G, see `Metric`; after `fit`, the fitted one.
        n_steps: linearisations.
        amount: default; a number is a level of the barrier (0 the decision boundary, 1 the 90 %
            quantile of h over positives).
        max_strength: the longest correction, in class deviations.
    """

    quantities: ClassVar[tuple[str, ...]] = ("level",)
    dynamics: ClassVar[str] = "a' = a + λG∇h(a'), h(a') = τ where h(a) < τ"
    barrier_summary: ClassVar[str] = (
        "any; quadratic by default, in a/‖a‖ where that tells the classes apart"
    )
    solver_summary: ClassVar[str] = "sequential linearisation, 10 steps"
    cost: ClassVar[str] = "O(d r) a step, r the rank of h"
    reference: ClassVar[str] = (
        "this project, pointwise; control barriers in steering: BarrierSteer, arXiv 2602.20102"
    )

    step_parameters: ClassVar[tuple[str, ...]] = ("n_steps",)

    barrier = FittedPart[Barrier]()
    barrier_: Barrier
    metric = FittedPart[Metric]()
    metric_: Metric

    def __init__(
        self,
        barrier: Barrier = PolynomialBarrier(),
        metric: Metric = Euclidean(),
        n_steps: int = 10,
        amount: Amount | float = 0.0,
        max_strength: float = 10.0,
    ) -> None:
        self.barrier = barrier
        self.metric = metric
        self.n_steps = n_steps
        self.amount = amount
        self.max_strength = max_strength

    @property
    def field(self) -> GradientField:
        """The vector field of unit speed, along which the correction of a linear barrier lies."""
        self.check_fitted()
        return GradientField(self.barrier, self.metric)

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        if not is_integer(self.n_steps) or self.n_steps < 1:
            raise InvalidInputError(f"n_steps must be at least 1, not {self.n_steps!r}.")
        self.metric_ = self.metric.clone().fit(contrast.positive, contrast.negative)
        self.barrier_ = self.barrier.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        level = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        threshold = torch.as_tensor(
            self.barrier.threshold(amount.value), dtype=a.dtype, device=a.device
        )
        sign = torch.where(level >= 0, 1.0, -1.0).to(a)
        acts = sign * (self.barrier.value(a) - threshold) < 0
        cap = self.max_strength * self.strength_unit
        pair = self._pair()
        x = a
        if pair is None or isinstance(amount.value, Tensor) or amount.value < 0:
            x = self._nearest(a, threshold, cap)
        if pair is not None and (isinstance(amount.value, Tensor) or amount.value >= 0):
            # The least of two is at most τ where one of them is: no half-spaces below.
            x = torch.where((level >= 0)[..., None], self._nearest_of(pair, a, threshold, cap), x)
        x = _limited(a, x - a, cap)
        state, reached = self._cut_at_level(a, x, threshold, sign)
        state = torch.where(acts[..., None], state, a)
        return Solution(state, (state - a).norm(dim=-1), reached=reached | ~acts)

    def _pair(self) -> MinimumBarrier | None:
        """The barrier, where it is the exact minimum of two."""
        barrier = self.barrier
        exact = isinstance(barrier, MinimumBarrier) and barrier.temperature == 0
        return barrier if exact and len(barrier.barriers) == 2 else None  # type: ignore[attr-defined,return-value]

    def _nearest(self, a: Tensor, threshold: Tensor, cap: float) -> Tensor:
        """Near ``a`` on the level of one barrier."""
        x = a
        for _ in range(self.n_steps):
            h, ascent, slope, along = self._linearised(x, a)
            nearest = a + ((threshold - h + along) / slope)[..., None] * ascent
            x = _limited(x, nearest - x, cap / 5)  # where the linearisation can be trusted
        # Onto the level itself, along the gradient at the nearest point.
        for _ in range(2):
            h, ascent, slope, _along = self._linearised(x, a)
            x = x + ((threshold - h) / slope)[..., None] * ascent
        return x

    def _nearest_of(self, pair: MinimumBarrier, a: Tensor, threshold: Tensor, cap: float) -> Tensor:
        """Near ``a`` where both parts are at the level or above."""
        x = a
        for _ in range(self.n_steps):
            x = _limited(x, a + self._into_both(pair, x, a, threshold) - x, cap / 5)
        for _ in range(2):
            x = x + self._into_both(pair, x, x, threshold)
        return x

    def _into_both(
        self, pair: MinimumBarrier, x: Tensor, start: Tensor, threshold: Tensor
    ) -> Tensor:
        """The shortest step from ``start`` into both half-spaces of the linearisation at x.

        With multipliers λ ≥ 0 of which only those of active constraints are above 0.
        """
        values, gradients = pair.parts_and_gradients(x)
        ascents = self.metric.apply(gradients)
        missing = threshold - values + (gradients * (x - start)).sum(dim=-1)
        slopes = (gradients * ascents).sum(dim=-1)
        cross = (gradients[0] * ascents[1]).sum(dim=-1)
        alone = missing.clamp_min(0) / torch.where(slopes > 0, slopes, torch.inf)
        enough = cross * alone >= missing.flip(0)  # whether one constraint alone meets the other
        determinant = slopes[0] * slopes[1] - cross.square()
        spans = determinant > 1e-6 * slopes[0] * slopes[1]
        together = slopes.flip(0) * missing - cross * missing.flip(0)
        together = (together / torch.where(spans, determinant, 1.0)).clamp_min(0)
        together = torch.where(spans, together, alone)
        none = torch.zeros_like(alone[0])
        factors = (
            torch.where(enough[0], alone[0], torch.where(enough[1], none, together[0])),
            torch.where(enough[0], none, torch.where(enough[1], alone[1], together[1])),
        )
        step: Tensor = factors[0][..., None] * ascents[0] + factors[1][..., None] * ascents[1]
        return step

    def _linearised(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h(x), G∇h(x), ∇hᵀG∇h and ∇h·(x - a)."""
        h, gradient = self.barrier.value(x), self.barrier.gradient(x)
        ascent = self.metric.apply(gradient)
        slope = (gradient * ascent).sum(dim=-1)
        slope = torch.where(slope > 0, slope, torch.inf)  # no gradient: no correction
        return h, ascent, slope, (gradient * (x - a)).sum(dim=-1)

    def _cut_at_level(
        self, a: Tensor, x: Tensor, threshold: Tensor, sign: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``x``, or where it is past the level the crossing on the way there; and who reached it.

        Linearisation ends past the level only where h bends too strongly for it.
        """
        with torch.no_grad():
            excess = sign * (self.barrier.value(x) - threshold)
            tolerance = 1e-5 * threshold.abs().clamp_min(1.0)
            past = excess > tolerance
            low, high = torch.zeros_like(excess), torch.ones_like(excess)
            for _ in range(40 if bool(past.any()) else 0):
                middle = (low + high) / 2
                h = self.barrier.value(a + middle[..., None] * (x - a))
                above = sign * (h - threshold) >= 0
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            share = torch.where(past, high, 1.0)
        state = torch.where(past[..., None], a + share[..., None] * (x - a), x)
        return state, excess >= -tolerance


def _limited(start: Tensor, step: Tensor, cap: float) -> Tensor:
    """``start`` plus a step, at most ``cap`` long."""
    length = step.norm(dim=-1, keepdim=True)
    return start + step * torch.where(length > cap, cap / length.clamp_min(cap), 1.0)
