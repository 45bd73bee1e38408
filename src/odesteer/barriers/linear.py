"""Linear barriers: logistic regression, mean difference, linear discriminant."""

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.covariance import pooled_covariance
from odesteer.barriers.inputs import Centred, Inputs, Raw
from odesteer.barriers.logistic import fit_features
from odesteer.barriers.quadratic import QuadraticFunction, linear_function


class LinearBarrier(ComposedBarrier):
    """h(x) = w·x + b by L2-regularised logistic regression.

    Parameters:
        C: inverse strength of the regularisation, as in scikit-learn.
        inputs: what the classifier sees; `Centred` activations by default.
        folds, seed: see `Barrier`.
    """

    def __init__(
        self, C: float = 1.0, inputs: Inputs = Centred(), folds: int = 5, seed: int = 0
    ) -> None:
        self.C = C
        self.inputs = inputs
        self.folds = folds
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        x = self._prepare(contrast)
        weight, intercept = fit_features(x, contrast.labels.to(x.device), self.C)
        self.function_ = linear_function(weight.to(x.dtype), intercept + contrast.prior)


class MeanDifferenceBarrier(ComposedBarrier):
    """h(x) = (μ₊ - μ₋)·(x - (μ₊ + μ₋)/2), the barrier that contrastive activation addition climbs.

    The value is a projection in squared input units, not nats. With `UnitSphere` inputs it is the
    mean difference of directions.
    """

    def __init__(self, inputs: Inputs = Raw(), folds: int = 5, seed: int = 0) -> None:
        self.inputs = inputs
        self.folds = folds
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        self.function_ = halfway_function(x[:n], x[n:], None)


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
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.shrinkage = shrinkage
        self.inputs = inputs
        self.folds = folds
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        covariance = pooled_covariance(x[:n], x[n:], self.shrinkage)
        self.function_ = halfway_function(x[:n], x[n:], covariance)


def halfway_function(
    positive: Tensor, negative: Tensor, covariance: Tensor | None
) -> QuadraticFunction:
    """w·(x - (μ₊ + μ₋)/2) with w = Σ⁻¹(μ₊ - μ₋), Σ the identity when None."""
    mean_positive, mean_negative = positive.mean(dim=0), negative.mean(dim=0)
    weight = mean_positive - mean_negative
    if covariance is not None:
        weight = torch.linalg.solve(covariance.double(), weight.double()).to(weight)
    middle = (mean_positive + mean_negative) / 2
    return linear_function(weight, -float(weight @ middle))
