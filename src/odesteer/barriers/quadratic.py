"""Quadratic functions in their eigenbasis."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.estimator import Estimator


class QuadraticFunction(Estimator):
    """f(x) = Σᵢ λᵢzᵢ² + 2 Σᵢ mᵢzᵢ + c with z = Qᵀx and orthonormal Q.

    Every degree-2 polynomial classifier is one: xᵀMx + 2m·x + c with M = QΛQᵀ. Value and gradient
    cost two products with the `[d, r]` matrix Q, and flows of it stay in the span of Q (and, for
    functions of a/‖a‖, of a).

    Learned: ``basis_`` Q `[d, r]` (None for the identity), ``curvature_`` λ `[r]`, ``slope_`` m
    `[r]`, ``offset_`` c.
    """

    family: ClassVar[str] = "function"

    basis_: Tensor | None
    curvature_: Tensor
    slope_: Tensor
    offset_: float

    @classmethod
    def of(
        cls, basis: Tensor | None, curvature: Tensor, slope: Tensor, offset: float
    ) -> "QuadraticFunction":
        function = cls()
        function.basis_ = basis
        function.curvature_ = curvature
        function.slope_ = slope
        function.offset_ = float(offset)
        return function

    @property
    def rank(self) -> int:
        """Number of retained eigenvectors r."""
        return int(self.curvature_.shape[0])

    def value(self, x: Tensor) -> Tensor:
        z = self._coordinates(x)
        slope = self.slope_.to(x)
        # In the order of `value_and_gradient`, so that both give the same bits.
        half = self.curvature_.to(x) * z + slope
        return (z * (half + slope)).sum(-1) + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._coordinates(x)
        slope = self.slope_.to(x)
        half = self.curvature_.to(x) * z + slope
        gradient = 2 * half
        if self.basis_ is not None:
            gradient = gradient @ self.basis_.to(x).T
        return (z * (half + slope)).sum(-1) + self.offset_, gradient

    def along(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c₀, c₁ and c₂ `[...]` of f(x + s·v) = c₀ + c₁s + c₂s², for x and v `[..., d]`."""
        z, w = self._coordinates(x), self._coordinates(v)
        curvature, slope = self.curvature_.to(x), self.slope_.to(x)
        half = curvature * z + slope
        value = (z * (half + slope)).sum(-1) + self.offset_
        return value, 2 * (half * w).sum(-1), (curvature * w.square()).sum(-1)

    def diagonal(self, extra: int) -> "QuadraticFunction":
        """The function of z alone, with ``extra`` further coordinates it does not depend on."""
        pad = (0, extra)
        return QuadraticFunction.of(
            None,
            torch.nn.functional.pad(self.curvature_, pad),
            torch.nn.functional.pad(self.slope_, pad),
            self.offset_,
        )

    def scaled(self, factor: float) -> "QuadraticFunction":
        """The function ``factor``·f."""
        return QuadraticFunction.of(
            self.basis_, factor * self.curvature_, factor * self.slope_, factor * self.offset_
        )

    def of_standardized(self, mean: Tensor, scale: Tensor) -> "QuadraticFunction":
        """v ↦ f((v - mean)/scale) for ``mean`` `[d]` and ``scale`` `[1]` or `[d]`, without zeros.

        For scales by coordinate the eigenbasis changes; computed in float64.
        """
        mean, scale = mean.double(), scale.double()
        curvature, slope = self.curvature_.double(), self.slope_.double()
        basis = self.basis_
        if len(scale) == 1:
            rotation, triangle = None, scale.reciprocal()
            half = curvature * triangle**2
            centre = (mean if basis is None else mean @ basis.double()) * triangle
            linear = triangle * (slope - curvature * centre)
        else:
            basis = torch.eye(len(mean)).to(mean) if basis is None else basis
            scaled = basis.double() / scale[:, None]
            centre = mean @ scaled
            span, triangle = torch.linalg.qr(scaled)
            half, rotation = torch.linalg.eigh((triangle * curvature) @ triangle.T)
            basis = (span @ rotation).to(self.slope_)
            linear = (triangle @ (slope - curvature * centre)) @ rotation
        offset = self.offset_ + float((curvature * centre.square() - 2 * slope * centre).sum())
        return QuadraticFunction.of(basis, half.to(self.slope_), linear.to(self.slope_), offset)

    def _coordinates(self, x: Tensor) -> Tensor:
        return x if self.basis_ is None else x @ self.basis_.to(x)


def quadratic_from_matrix(matrix: Tensor, slope: Tensor, offset: float) -> QuadraticFunction:
    """xᵀMx + 2m·x + c at full rank, from symmetric M `[d, d]` and m `[d]`."""
    curvature, basis = torch.linalg.eigh(matrix)
    return QuadraticFunction.of(basis, curvature, slope @ basis, offset)


def quadratic_from_kernel(
    points: Tensor, weights: Tensor, gamma: float, c0: float, offset: float
) -> QuadraticFunction:
    """Σᵢ wᵢ(γ x·xᵢ + c₀)² + offset from points `[n, d]`, at the full rank min(n, d)."""
    n, d = points.shape
    slope = gamma * c0 * (weights @ points)
    offset = offset + c0**2 * float(weights.sum())
    if n >= d:
        matrix = gamma**2 * (points.T * weights) @ points
        return quadratic_from_matrix(matrix, slope, offset)
    # M has rank at most n: diagonalise it in an orthonormal basis of the points.
    span, triangle = torch.linalg.qr(points.T)
    curvature, rotation = torch.linalg.eigh(gamma**2 * (triangle * weights) @ triangle.T)
    basis = span @ rotation
    return QuadraticFunction.of(basis, curvature, slope @ basis, offset)


def truncate(function: QuadraticFunction, rank: int) -> QuadraticFunction:
    """Keep the ``rank`` eigenvectors of largest |λ|, and exactly the direction of the slope.

    The part of the slope outside the kept eigenvectors becomes one more basis vector, so that the
    linear term stays exact; curvature within the kept span is exact too.
    """
    if rank >= function.rank or function.basis_ is None:
        return function
    order = function.curvature_.abs().argsort(descending=True)
    kept, dropped = order[:rank], order[rank:]
    rest = function.slope_[dropped]
    length = rest.norm()
    curvature, slope = function.curvature_[kept], function.slope_[kept]
    basis = function.basis_[:, kept]
    if length > 0:
        unit = rest / length
        basis = torch.cat([basis, (function.basis_[:, dropped] @ unit)[:, None]], dim=1)
        own = (function.curvature_[dropped] * unit.square()).sum()
        curvature = torch.cat([curvature, own[None]])
        slope = torch.cat([slope, length[None]])
    return QuadraticFunction.of(basis, curvature, slope, function.offset_)


def linear_function(weight: Tensor, offset: float) -> QuadraticFunction:
    """w·x + offset as a quadratic function of rank one and no curvature."""
    length = weight.norm()
    basis = (
        weight / length
        if length > 0
        else torch.nn.functional.one_hot(torch.tensor(0, device=weight.device), len(weight)).to(
            weight
        )
    )
    return QuadraticFunction.of(
        basis[:, None], torch.zeros_like(length)[None], length[None] / 2, offset
    )
