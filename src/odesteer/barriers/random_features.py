"""Barriers on random features: TensorSketch and random Fourier features."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.inputs import Inputs, Raw, UnitSphere
from odesteer.barriers.logistic import fit_features
from odesteer.barriers.quadratic import QuadraticFunction, linear_function, quadratic_from_matrix
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer

_BLOCK = 1024


class TensorSketchBarrier(ComposedBarrier):
    """Logistic regression on a TensorSketch of (γ x·y + c₀)^p (arXiv 2602.17560, section 4.2).

    TensorSketch (Pham and Pagh, KDD 2013): with x̃ = [√γ x, √c₀], hashes h₁…h_p into
    ``n_components`` cells and random signs, the features are the circular convolution of the p
    count sketches of x̃. Degrees 1 and 2 collapse to a quadratic function, exactly.

    Parameters:
        degree: p, at least 1.
        gamma, c0: of the kernel.
        n_components: number of features.
        C: inverse strength of the regularisation.
        inputs: what the features see; the direction a/‖a‖ by default.
        fitting: see `Fitting`; the seed also draws hashes and signs.
        class_weight: "balanced" for both classes to count alike; None for each example to, and
            log(n₋/n₊) to be added, as in the paper, where h = 0 depends on the class sizes.
    """

    added_parameters: ClassVar[Mapping[str, Any]] = {"class_weight": None}

    step_parameters = ("degree",)
    size_parameters = ("n_components",)

    def __init__(
        self,
        degree: int = 2,
        gamma: float = 0.1,
        c0: float = 1.0,
        n_components: int = 8000,
        C: float = 1.0,
        inputs: Inputs = UnitSphere(),
        fitting: Fitting = Fitting(),
        class_weight: Literal["balanced"] | None = "balanced",
    ) -> None:
        self.class_weight = class_weight
        self.degree = degree
        self.gamma = gamma
        self.c0 = c0
        self.n_components = n_components
        self.C = C
        self.inputs = inputs
        self.fitting = fitting

    @classmethod
    def from_tables(
        cls,
        hashes: Tensor,
        signs: Tensor,
        coefficients: Tensor,
        intercept: float,
        *,
        gamma: float,
        c0: float,
        class_counts: tuple[int, int],
        quantiles: tuple[float, float] = (math.nan, math.nan),
    ) -> "TensorSketchBarrier":
        """A fitted barrier from given tables.

        ``hashes`` (integers) and ``signs`` (±1) are `[p, d + 1]`, the last column for the constant
        feature; ``coefficients`` `[n_components]` and ``intercept`` are the classifier's;
        ``class_counts`` is (n₊, n₋). ``quantiles`` are the upper and lower ones that levels count
        in; without them only T and strength can be used.
        """
        degree, columns = hashes.shape
        barrier = cls(
            degree, gamma, c0, len(coefficients), fitting=Fitting(folds=0), class_weight=None
        )
        barrier.width_ = columns - 1
        sketch = TensorSketch(degree, gamma, c0, len(coefficients)).over(hashes, signs)
        offset = float(intercept) + math.log(class_counts[1] / class_counts[0])
        barrier.function_ = sketch.linear_in_features(coefficients, offset)
        barrier.held_out_ = None
        barrier.upper_, barrier.lower_ = quantiles
        return barrier

    def _is_log_ratio(self) -> bool:
        return self.class_weight == "balanced"

    def _fit(self, contrast: Contrast) -> None:
        if not is_integer(self.degree, 1):
            raise InvalidInputError(f"degree must be an integer ≥ 1, not {self.degree!r}.")
        if not self.gamma > 0 or not self.c0 >= 0 or self.n_components < 1:
            raise InvalidInputError(
                "TensorSketch needs gamma > 0, c0 >= 0 and n_components >= 1, not"
                f" gamma={self.gamma}, c0={self.c0}, n_components={self.n_components}."
            )
        if self.class_weight not in ("balanced", None):
            raise InvalidInputError(
                f'class_weight must be "balanced" or None, not {self.class_weight!r}.'
            )
        x = self._prepare(contrast)
        sketch = TensorSketch(self.degree, self.gamma, self.c0, self.n_components)
        sketch = sketch.drawn(contrast.width, self.seed).to(x.device)
        y = contrast.labels.to(x.device)
        # In blocks: the transforms take several times the memory of the features.
        features = torch.cat([sketch.features(block) for block in torch.split(x, _BLOCK)])
        balanced = self.class_weight == "balanced"
        coefficients, intercept = fit_features(features, y, self.C, balanced=balanced)
        offset = intercept if balanced else intercept + contrast.prior
        self.function_ = sketch.linear_in_features(coefficients.to(x.dtype), offset)


class TensorSketch(Function):
    """f(x) = w·φ(x) + c with the TensorSketch features φ, by fast Fourier transforms.

    Learned: ``hashes_`` and ``signs_`` `[p, d + 1]`; ``coefficients_`` w `[n_components]` and
    ``offset_`` c where f has been set.
    """

    hashes_: Tensor
    signs_: Tensor
    coefficients_: Tensor
    offset_: float

    step_parameters = ("degree",)
    size_parameters = ("n_components",)

    def __init__(self, degree: int, gamma: float, c0: float, n_components: int) -> None:
        self.degree = degree
        self.gamma = gamma
        self.c0 = c0
        self.n_components = n_components

    def drawn(self, width: int, seed: int) -> "TensorSketch":
        """Draw hashes and signs for inputs of ``width``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.degree, width + 1)
        hashes = torch.randint(self.n_components, shape, generator=generator)
        signs = 2 * torch.randint(2, shape, generator=generator) - 1
        return self.over(hashes, signs)

    def over(self, hashes: Tensor, signs: Tensor) -> "TensorSketch":
        """Set the hashes and signs. Raises `InvalidInputError` for tables that do not fit."""
        if hashes.shape != signs.shape or hashes.ndim != 2 or len(hashes) != self.degree:
            raise InvalidInputError(
                f"hashes {tuple(hashes.shape)} and signs {tuple(signs.shape)} must both be"
                f" [{self.degree}, d + 1]."
            )
        if int(hashes.min()) < 0 or int(hashes.max()) >= self.n_components:
            raise InvalidInputError(
                f"hashes run from {int(hashes.min())} to {int(hashes.max())}; they must lie in"
                f" [0, {self.n_components})."
            )
        self.hashes_, self.signs_ = hashes.long(), signs.float()
        return self

    def scaled(self, factor: float) -> "TensorSketch":
        copy = TensorSketch(self.degree, self.gamma, self.c0, self.n_components)
        copy.over(self.hashes_, self.signs_)
        copy.coefficients_, copy.offset_ = factor * self.coefficients_, factor * self.offset_
        return copy

    def features(self, x: Tensor) -> Tensor:
        """φ(x): `[..., d] -> [..., n_components]`."""
        if x.numel() == 0:  # which the transforms refuse
            return x.new_zeros(*x.shape[:-1], self.n_components)
        return self._convolved(self._spectra(x))

    def value(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.coefficients_.to(x) + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient is the vector-Jacobian product of the convolution: correlations with the
        other sketches."""
        if x.numel() == 0:
            return self.value(x), torch.zeros_like(x)
        spectra = self._spectra(x)
        coefficients = self.coefficients_.to(x)
        weights = torch.fft.rfft(coefficients)
        total = torch.zeros_like(x)
        for j in range(self.degree):
            others: Sequence[Tensor] = spectra[:j] + spectra[j + 1 :]
            product = math.prod(others[1:], start=others[0]).conj() if others else 1.0
            cells = torch.fft.irfft(product * weights, n=self.n_components)
            cells = cells.expand(*x.shape[:-1], self.n_components)
            total = total + self.signs_[j, :-1].to(x) * cells[..., self.hashes_[j, :-1]]
        value = self._convolved(spectra) @ coefficients + self.offset_
        return value, math.sqrt(self.gamma) * total

    def _convolved(self, spectra: list[Tensor]) -> Tensor:
        """φ(x) from the transforms of its sketches."""
        first, *others = spectra
        features: Tensor = torch.fft.irfft(math.prod(others, start=first), n=self.n_components)
        return features

    def linear_in_features(
        self, coefficients: Tensor, offset: float
    ) -> "TensorSketch | QuadraticFunction":
        """w·φ(x) + c, as a quadratic function where the degree allows."""
        self.coefficients_, self.offset_ = coefficients, float(offset)
        if self.degree > 2:
            return self
        w, signs, hashes = coefficients.double(), self.signs_.double(), self.hashes_
        root_gamma, root_c0 = math.sqrt(self.gamma), math.sqrt(self.c0)
        if self.degree == 1:
            linear = signs[0] * w[hashes[0]]
            constant = root_c0 * float(linear[-1]) + self.offset_
            function = linear_function(root_gamma * linear[:-1], constant)
        else:
            cells = (hashes[0][:, None] + hashes[1]) % self.n_components
            form = signs[0][:, None] * signs[1] * w[cells]
            form = (form + form.T) / 2
            function = quadratic_from_matrix(
                self.gamma * form[:-1, :-1],
                root_gamma * root_c0 * form[:-1, -1],
                self.c0 * float(form[-1, -1]) + self.offset_,
            )
        return function.to(dtype=coefficients.dtype)

    def _spectra(self, x: Tensor) -> list[Tensor]:
        """Fourier transforms of the p count sketches of [√γ x, √c₀]."""
        constant = torch.full_like(x[..., :1], math.sqrt(self.c0))
        extended = torch.cat([math.sqrt(self.gamma) * x, constant], dim=-1)
        spectra = []
        for hashes, signs in zip(self.hashes_, self.signs_, strict=True):
            cells = x.new_zeros(*x.shape[:-1], self.n_components)
            cells.index_add_(-1, hashes, extended * signs.to(x))
            spectra.append(torch.fft.rfft(cells))
        return spectra


class RandomFourierBarrier(ComposedBarrier):
    """Logistic regression on random Fourier features of a Gaussian kernel.

    Rahimi and Recht, NeurIPS 2007: φ(x) = √(2/n) cos(Wx + b) with W ~ N(0, 1/σ²), b ~ U[0, 2π]
    approximates exp(-‖x - y‖²/2σ²). An ablation of arXiv 2602.17560.

    Parameters:
        n_components: number of features.
        bandwidth: σ in units of the inputs; None takes the median distance between examples.
        C: inverse strength of the regularisation.
        inputs: what the features see; the activation itself by default, as in the ablation.
        fitting: see `Fitting`; the seed also draws the features.

    Learned: ``bandwidth_``, the σ used.
    """

    bandwidth_: float

    size_parameters = ("n_components",)

    def __init__(
        self,
        n_components: int = 8000,
        bandwidth: float | None = None,
        C: float = 1.0,
        inputs: Inputs = Raw(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.C = C
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

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
        coefficients, intercept = fit_features(function.features(x), y, self.C, balanced=True)
        function.coefficients_ = coefficients.to(x)
        function.offset_ = intercept
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

    def scaled(self, factor: float) -> "RandomFourierFunction":
        return RandomFourierFunction.of(
            self.weights_, self.phases_, factor * self.coefficients_, factor * self.offset_
        )

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
