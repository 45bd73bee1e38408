"""Barriers of Gaussian classes: linear and quadratic discriminants, covariance estimates."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import HeldOutValues, group_folds
from odesteer.barriers.inputs import Centred, Inputs, Raw
from odesteer.barriers.linear import halfway_function
from odesteer.barriers.logistic import class_weights
from odesteer.barriers.quadratic import QuadraticFunction, quadratic_from_matrix
from odesteer.errors import InvalidInputError

# Smallest over largest variance for which float64 still has digits left.
_SMALLEST_VARIANCE = 1e-13


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution with a regular covariance, in float64.

    Attributes:
        mean: `[d]`.
        covariance: Σ `[d, d]`.
        factor: the lower triangular L `[d, d]` with LLᵀ = Σ.
    """

    mean: Tensor
    covariance: Tensor
    factor: Tensor

    @classmethod
    def of(cls, a: Tensor, shrinkage: float | None, ridge: float) -> "Gaussian":
        """Fitted to examples `[n, d]`; see `class_covariance`.

        Raises `InvalidInputError` where Σ is singular in float64.
        """
        covariance = class_covariance(a, shrinkage, ridge)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        pivots = factor.diagonal().square()
        if bool(failed) or not bool(pivots.min() > _SMALLEST_VARIANCE * pivots.max()):
            raise InvalidInputError(
                f"the covariance of {a.shape[0]} examples of width {a.shape[1]} is singular with"
                f" shrinkage={shrinkage} and ridge={ridge}; use more of either, or more examples."
            )
        return cls(a.double().mean(dim=0), covariance, factor)

    def log_density(self, x: Tensor) -> Tensor:
        """log N(x; μ, Σ) of `[n, d]` float64, `[n]`, but for the constant d/2 log 2π."""
        white = torch.linalg.solve_triangular(self.factor, (x - self.mean).T, upper=False)
        density: Tensor = -white.square().sum(dim=0) / 2 - self.factor.diagonal().log().sum()
        return density


class LinearDiscriminantBarrier(ComposedBarrier):
    """h(a) = (Σ⁻¹(μ₊ - μ₋))·(a - (μ₊ + μ₋)/2): the log-density ratio of two Gaussians with one Σ.

    Σ is the pooled within-class covariance, shrunk towards a multiple of the identity (Ledoit and
    Wolf 2004 when ``shrinkage`` is None). With `Raw` inputs, in the metric of the same Σ, its
    gradient flow is contrastive activation addition.
    """

    def __init__(
        self,
        shrinkage: float | None = None,
        inputs: Inputs = Raw(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.shrinkage = shrinkage
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        covariance = pooled_covariance(x[:n], x[n:], self.shrinkage)
        self.function_ = halfway_function(x[:n], x[n:], covariance)


class QuadraticDiscriminantBarrier(ComposedBarrier):
    """h(x) = log N(x; μ₊, Σ₊) - log N(x; μ₋, Σ₋): the log-density ratio of two Gaussians.

    Quadratic with the matrix (Σ₋⁻¹ - Σ₊⁻¹)/2, at full rank.

    Parameters:
        shrinkage: of each covariance towards a multiple of the identity; None for Ledoit and Wolf
            (2004).
        ridge: what is added to the diagonal of both, in squared units of the inputs.
        inputs: what the Gaussians live on.
        fitting: see `Fitting`.
    """

    def __init__(
        self,
        shrinkage: float | None = None,
        ridge: float = 0.0,
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        self.function_ = log_ratio(self._gaussian(x[:n]), self._gaussian(x[n:]), x.dtype)

    def _held_out_values(self, contrast: Contrast) -> HeldOutValues | None:
        # By triangular solves, since the eigenbasis of the function costs many times as much.
        values = torch.full((len(contrast.labels),), math.nan, dtype=torch.float64)
        for mask in group_folds(contrast.groups, contrast.labels, self.folds, self.seed):
            positive, negative, _ = contrast.split(~mask)
            inputs = self.get_params(deep=False)["inputs"].clone()
            inputs.fit(torch.cat([positive, negative]), class_weights(contrast.labels[~mask]))
            x = inputs(contrast.examples[mask]).double()
            ratio = self._gaussian(inputs(positive)).log_density(x)
            ratio = ratio - self._gaussian(inputs(negative)).log_density(x)
            values[mask] = ratio.cpu()
        rated = ~values.isnan()
        return (values, rated) if bool(rated.any()) else None

    def _gaussian(self, x: Tensor) -> Gaussian:
        return Gaussian.of(x, self.shrinkage, self.ridge)


def log_ratio(positive: Gaussian, negative: Gaussian, dtype: torch.dtype) -> QuadraticFunction:
    """log N(x; μ₊, Σ₊) - log N(x; μ₋, Σ₋) in its eigenbasis."""
    precisions = [torch.cholesky_inverse(gaussian.factor) for gaussian in (positive, negative)]
    pull = [p @ g.mean for p, g in zip(precisions, (positive, negative), strict=True)]
    offset = (pull[1] @ negative.mean - pull[0] @ positive.mean) / 2
    offset += negative.factor.diagonal().log().sum() - positive.factor.diagonal().log().sum()
    matrix, slope = (precisions[1] - precisions[0]) / 2, (pull[0] - pull[1]) / 2
    function = quadratic_from_matrix((matrix + matrix.T) / 2, slope, float(offset))
    return function.to(dtype=dtype)


def pooled_covariance(positive: Tensor, negative: Tensor, shrinkage: float | None) -> Tensor:
    """Pooled within-class covariance `[d, d]` of sets `[n₊, d]` and `[n₋, d]`, shrunk.

    (1 - s)Σ̂ + s·tr(Σ̂)/d·I with ``shrinkage`` s in [0, 1]; None takes the s of Ledoit and Wolf
    (J. Multivariate Analysis 2004), which minimises the expected squared error. Computed in
    float64, returned in the type of ``positive``.
    """
    residuals = torch.cat([a - a.mean(dim=0) for a in (positive, negative)]).double()
    return _shrunk(residuals, shrinkage, 0.0).to(positive.dtype)


def class_covariance(a: Tensor, shrinkage: float | None, ridge: float) -> Tensor:
    """Covariance `[d, d]` (float64) of one set `[n, d]`, shrunk like `pooled_covariance`, + ρI.

    ``ridge`` is ρ ≥ 0, in squared units of ``a``. The s of Ledoit and Wolf is taken to be at least
    1/n: for two examples it is zero, though their covariance has rank one.
    """
    if not 0 <= ridge < math.inf:
        raise InvalidInputError(f"ridge must be a number ≥ 0, not {ridge}.")
    a = a.double()
    residuals = a - a.mean(dim=0)
    covariance = _shrunk(residuals, shrinkage, 1 / len(a))
    covariance.diagonal().add_(ridge)
    return covariance


def _shrunk(residuals: Tensor, shrinkage: float | None, least: float) -> Tensor:
    """Of residuals `[n, d]` float64; ``least`` bounds a shrinkage that is not given."""
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InvalidInputError(f"shrinkage must be between 0 and 1 or None, not {shrinkage}.")
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    target = covariance.diagonal().mean()
    s = shrinkage
    if s is None:
        s = max(_ledoit_wolf(residuals, covariance, target), least)
    return (1 - s) * covariance + s * target * torch.eye(d, dtype=torch.float64).to(residuals)


def _ledoit_wolf(residuals: Tensor, covariance: Tensor, target: Tensor) -> float:
    n, d = residuals.shape
    distance = covariance.square().sum() - d * target**2
    fourth = residuals.square().sum(dim=1).square().sum() / n
    noise = (fourth - covariance.square().sum()) / n
    return float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0
