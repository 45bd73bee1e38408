"""MiMiC: affine transport between Gaussians (Singh et al., ICML 2024, arXiv 2402.09631)."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import (
    Barrier,
    Centred,
    Contrast,
    Fitting,
    LinearBarrier,
    QuadraticDiscriminantBarrier,
    Raw,
)
from odesteer.barriers.gaussian import Gaussian
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method


class MiMiC(Method):
    """Maps the negatives' mean and covariance onto the positives' by the optimal affine map.

    m(a) = μ₊ + A(a - μ₋) with the symmetric A = Σ₋^{-1/2}(Σ₋^{1/2}Σ₊Σ₋^{1/2})^{1/2}Σ₋^{-1/2}, the
    optimal transport of N(μ₋, Σ₋) onto N(μ₊, Σ₊), and a' = a + λ(m(a) - a). A negative λ
    applies |λ| of the inverse of m, the transport of the positives onto the negatives.

    ``interpolation`` is λ; only activations that the ``gate`` classifies as negative move (for
    λ < 0, positive). ``level`` moves each activation along its line a + λ(m(a) - a) to the
    smallest λ at which the barrier, the log-likelihood ratio of the two Gaussians, has the value;
    on the line it is quadratic, so this has a closed form, and the gate is not used. Where the
    line does not reach the level, the activation stops where h is best on it, at most at
    ``max_interpolation``, and counts as not reached.

    Parameters:
        shrinkage: of each covariance towards a multiple of the identity, from 0 to 1; None for
            Ledoit and Wolf (2004).
        ridge: added to the diagonal of both, in squared activation units. The comparison of arXiv
            2602.17560 has shrinkage 0 and ridge 0.01.
        gate: the probe; after `fit`, the fitted one. None moves every activation.
        amount: default; a number is an interpolation, λ.
        max_interpolation: the largest λ of a level.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``barrier_``, ``mean_positive_`` μ₊ and ``mean_negative_`` μ₋ `[d]`, ``axes_`` U
    `[d, d]` and ``stretch_`` S `[d]` with A = USUᵀ.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation", "level")
    dynamics: ClassVar[str] = "affine map, a' = a + λ(μ₊ + A(a - μ₋) - a)"
    barrier_summary: ClassVar[str] = "log N(a; μ₊, Σ₊) - log N(a; μ₋, Σ₋)"
    keeps_norm: ClassVar[bool] = False
    cost: ClassVar[str] = "O(d²)"
    reference: ClassVar[str] = "Singh et al., ICML 2024, arXiv 2402.09631"

    gate = FittedPart[Barrier | None]()
    gate_: Barrier
    barrier_: QuadraticDiscriminantBarrier
    mean_positive_: Tensor
    mean_negative_: Tensor
    axes_: Tensor
    stretch_: Tensor

    amount_words: ClassVar[tuple[str, ...]] = ("interpolation",)

    def __init__(
        self,
        shrinkage: float | None = None,
        ridge: float = 0.0,
        gate: Barrier | None = LinearBarrier(inputs=Raw(), fitting=Fitting(folds=0)),
        amount: Amount | float = 1.0,
        max_interpolation: float = 2.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.gate = gate
        self.amount = amount
        self.max_interpolation = max_interpolation
        self.fitting = fitting

    @property
    def barrier(self) -> QuadraticDiscriminantBarrier:
        """The fitted log-likelihood ratio, nats."""
        self.check_fitted()
        return self.barrier_

    def _fit(self, contrast: Contrast) -> None:
        if not 0 < self.max_interpolation < math.inf:
            raise InvalidInputError(
                f"max_interpolation must be a positive number, not {self.max_interpolation}."
            )
        sides = contrast.positive, contrast.negative
        positive, negative = (Gaussian.of(side, self.shrinkage, self.ridge) for side in sides)
        self.axes_, self.stretch_ = (
            part.to(contrast.positive.dtype) for part in transport(negative, positive)
        )
        self.mean_positive_, self.mean_negative_ = (side.mean(dim=0) for side in sides)
        # In centred inputs of unit scale, so that float32 squares are accurate enough.
        unit = Centred().fit(contrast.examples).scale_
        barrier = QuadraticDiscriminantBarrier(
            self.shrinkage, self.ridge / unit**2, Centred(), self.fitting
        )
        self.barrier_ = barrier.fit(*sides, contrast.group_pair)
        if self.gate is not None:
            self.gate_ = self.gate.clone().fit(*sides, contrast.group_pair)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device).expand(a.shape[:-1])
        displacement = self._displacement(a, value >= 0)
        reached = None
        if amount.quantity == "level":
            fraction, reached = self._fraction_to(a, displacement, value)
        else:
            fraction = value.abs()
            if self.gate is not None:
                h = self.gate.value(a)
                fraction = torch.where(torch.where(value >= 0, h < 0, h > 0), fraction, 0.0)
        state = a + fraction[..., None] * displacement
        state = torch.where(fraction[..., None] == 0, a, state)
        return Solution(state, fraction * displacement.norm(dim=-1), reached=reached)

    def _displacement(self, a: Tensor, upwards: Tensor) -> Tensor:
        """m(a) - a, and where not ``upwards`` `[...]` the same of the inverse, `[..., d]`."""
        up = upwards[..., None]
        positive, negative = self.mean_positive_.to(a), self.mean_negative_.to(a)
        axes, stretch = self.axes_.to(a), self.stretch_.to(a)
        z = (a - torch.where(up, negative, positive)) @ axes
        change = (torch.where(up, stretch, 1 / stretch) - 1) * z
        return torch.where(up, positive - negative, negative - positive) + change @ axes.T

    def _fraction_to(self, a: Tensor, displacement: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The fraction of its displacement at which each activation has a level; whether any."""
        function, inputs = self.barrier_.function_, self.barrier_.inputs
        assert isinstance(function, QuadraticFunction)  # as `_fit` made it
        assert isinstance(inputs, Centred)
        h, slope, bend = function.along(inputs(a), displacement / inputs.scale_)
        sign = torch.where(level >= 0, 1.0, -1.0).to(a)
        missing = sign * (torch.as_tensor(self.barrier_.threshold(level)).to(a) - h)
        slope, bend, cap = sign * slope, sign * bend, self.max_interpolation
        crossing = _first_crossing(missing, slope, bend)
        # Otherwise the peak of h before the cap, or the better end.
        peak = (slope / (-2 * bend)).clamp(0, cap)
        end = torch.where(slope + bend * cap > 0, torch.full_like(slope, cap), 0.0)
        best = torch.where(bend < 0, peak, end)
        satisfied = missing <= 0
        reachable = crossing <= cap
        fraction = torch.where(satisfied, 0.0, torch.where(reachable, crossing, best))
        return fraction, satisfied | reachable


def transport(source: Gaussian, target: Gaussian) -> tuple[Tensor, Tensor]:
    """Eigenvectors `[d, d]` and eigenvalues `[d]`, float64, of the optimal A with AΣA = Σ'.

    With Σ = LLᵀ, A = L⁻ᵀ(LᵀΣ'L)^{1/2}L⁻¹ (Olkin and Pukelsheim 1982): symmetric, positive definite
    and one Cholesky factorisation cheaper than with the roots of Σ.
    """
    factor = source.factor
    squared, vectors = torch.linalg.eigh(factor.T @ target.covariance @ factor)
    # The fourth root, so that A is a product with its own transpose.
    root = vectors * squared.clamp_min(0).sqrt().sqrt()
    half = torch.linalg.solve_triangular(factor.T, root, upper=True)
    stretch, axes = torch.linalg.eigh(half @ half.T)
    return axes, stretch.clamp_min(torch.finfo(stretch.dtype).eps * stretch.max())


def _first_crossing(missing: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """The smallest s > 0 with slope·s + bend·s² = missing, for missing > 0; infinite for none."""
    discriminant = slope.square() + 4 * bend * missing
    root = discriminant.clamp_min(0).sqrt()
    # Two forms of one root, so that neither subtracts nearly equal numbers.
    rising = 2 * missing / (slope + root)
    falling = (root - slope) / (2 * bend)
    crossing = torch.where(slope >= 0, rising, falling)
    exists = (discriminant >= 0) & torch.where(slope >= 0, slope + root > 0, bend > 0)
    return torch.where(exists, crossing, math.inf)
