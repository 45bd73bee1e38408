"""Barriers on random Fourier features."""

import math

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.inputs import Inputs, Raw
from odesteer.barriers.logistic import fit_features
from odesteer.errors import InvalidInputError


class RandomFourierBarrier(ComposedBarrier):
    """Logistic regression on random Fourier features of a Gaussian kernel.

    Rahimi and Recht, NeurIPS 2007: φ(x) = √(2/n) cos(Wx + b) with W ~ N(0, 1/σ²), b ~ U[0, 2π]
    approximates exp(-‖x - y‖²/2σ²). An ablation of arXiv 2602.17560.

    Parameters:
        n_components: number of features.
        bandwidth: σ in units of the inputs; None takes the median distance between examples.
        C: inverse strength of the regularisation.
        inputs: what the features see; the activation itself by default, as in the ablation.
        folds, seed: see `Barrier`; the seed also draws the features.

    Learned: ``bandwidth_``, the σ used.
    """

    bandwidth_: float

    def __init__(
        self,
        n_components: int = 8000,
        bandwidth: float | None = None,
        C: float = 1.0,
        inputs: Inputs = Raw(),
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.C = C
        self.inputs = inputs
        self.folds = folds
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise InvalidInputError(f"bandwidth must be positive or None, not {self.bandwidth}.")
        if self.n_components < 1:
            raise InvalidInputError(f"n_components must be at least 1, not {self.n_components}.")
        x = self._prepare(contrast)
        generator = torch.Generator().manual_seed(self.seed)
        sigma = _median_distance(x, generator) if self.bandwidth is None else self.bandwidth
        self.bandwidth_ = float(sigma)
        shape = (self.n_components, contrast.width)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64) / sigma
        phases = (
            2 * math.pi * torch.rand(self.n_components, generator=generator, dtype=torch.float64)
        )
        function = RandomFourierFunction.of(weights.to(x), phases.to(x))
        y = contrast.labels.to(x.device)
        coefficients, intercept = fit_features(function.features(x), y, self.C)
        function.coefficients_ = coefficients.to(x)
        function.offset_ = intercept + contrast.prior
        self.function_ = function


class RandomFourierFunction(Function):
    """f(x) = w·√(2/n) cos(Wx + b) + c.

    Learned: ``weights_`` W `[n, d]`, ``phases_`` b `[n]`, ``coefficients_`` w `[n]`, ``offset_`` c.
    """

    weights_: Tensor
    phases_: Tensor
    coefficients_: Tensor
    offset_: float

    @classmethod
    def of(
        cls,
        weights: Tensor,
        phases: Tensor,
        coefficients: Tensor | None = None,
        offset: float = 0.0,
    ) -> "RandomFourierFunction":
        """From given tables; without coefficients only `features` can be used."""
        function = cls()
        function.weights_, function.phases_ = weights, phases
        if coefficients is not None:
            function.coefficients_ = coefficients
        function.offset_ = float(offset)
        return function

    def features(self, x: Tensor) -> Tensor:
        """φ(x): `[..., d] -> [..., n]`."""
        scale = math.sqrt(2 / len(self.phases_))
        return scale * torch.cos(x @ self.weights_.to(x).T + self.phases_.to(x))

    def value(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.coefficients_.to(x) + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, coefficients = self.weights_.to(x), self.coefficients_.to(x)
        scale = math.sqrt(2 / len(self.phases_))
        angles = x @ weights.T + self.phases_.to(x)
        value = (scale * torch.cos(angles)) @ coefficients + self.offset_
        return value, -scale * (torch.sin(angles) * coefficients) @ weights


def _median_distance(x: Tensor, generator: torch.Generator, most: int = 1000) -> float:
    """The median heuristic for σ, on at most 1,000 of the examples."""
    rows = torch.randperm(len(x), generator=generator)[:most].to(x.device)
    distances = torch.nn.functional.pdist(x[rows].double())
    median = float(distances[distances > 0].median()) if bool((distances > 0).any()) else 0.0
    if median == 0:
        raise InvalidInputError("all inputs are equal, so there is no median distance; give one.")
    return median
