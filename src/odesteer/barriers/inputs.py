"""Inputs of barriers: the activation, its direction, either of them standardised."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.errors import InvalidInputError
from odesteer.estimator import Estimator

# Rows at a time where a copy of all examples in float64 would be too large.
_BLOCK = 4096


class Inputs(Estimator, ABC):
    """A map x: R^d -> R^d with its transposed Jacobian.

    ``radial`` says that the map also depends on ‖a‖, so that gradients have a component along
    ``a`` itself.
    """

    family: ClassVar[str] = "inputs"
    radial: ClassVar[bool] = False

    @abstractmethod
    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        """Learn from the activations of both classes, `[n, d]`.

        ``weights`` `[n]`, of mean 1, say how much each counts; all the same when None.
        """

    @abstractmethod
    def __call__(self, a: Tensor) -> Tensor:
        """x(a), `[..., d] -> [..., d]`."""

    @abstractmethod
    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        """(∂x/∂a)ᵀ g: the gradient in ``a`` of a function whose gradient in ``x`` is ``g``."""

    def restrict(self, basis: Tensor, extra: int) -> "Inputs | None":
        """The same map in the coordinates of an orthonormal ``basis`` `[d, r]`, if it has one.

        ``extra`` more coordinates stand for lengths orthogonal to the basis.
        """
        return None

    def merged(self, function: QuadraticFunction) -> "tuple[Inputs, QuadraticFunction]":
        """Simpler inputs x' and the function f' with f'(x'(a)) = f(x(a)), where there are any."""
        return self, function


class Raw(Inputs):
    """The activation itself."""

    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        return self

    @property
    def is_fitted(self) -> bool:
        return True

    def __call__(self, a: Tensor) -> Tensor:
        return a

    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return g

    def restrict(self, basis: Tensor, extra: int) -> Inputs:
        return self


class UnitSphere(Inputs):
    """The direction of the activation, ``x = a/‖a‖`` (arXiv 2602.17560, section 4.2).

    Functions of it have gradients tangent to the sphere, so their exact flows keep ‖a‖. The zero
    vector has no direction: x = 0 there, and gradients are 0.
    """

    radial: ClassVar[bool] = True

    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        return self

    @property
    def is_fitted(self) -> bool:
        return True

    def __call__(self, a: Tensor) -> Tensor:
        return a * _inverse_norm(a)

    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return (g - (g * x).sum(-1, keepdim=True) * x) * _inverse_norm(a)

    def restrict(self, basis: Tensor, extra: int) -> Inputs:
        return self


class Centred(Inputs):
    """``x = (a - μ)/s`` with the mean μ and the root mean square distance s to it.

    Learned: ``mean_`` `[d]` and ``scale_`` (activation units).
    """

    mean_: Tensor
    scale_: float

    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        self.forget()
        self.mean_ = a.mean(dim=0) if weights is None else _weighted_mean(a, weights).to(a)
        total = 0.0
        for block, counts in _blocks(a, weights):
            square = (block - self.mean_).double().square()
            total += float((square if counts is None else square * counts).sum())
        self.scale_ = math.sqrt(total / len(a))
        if not self.scale_ > 0:
            raise InvalidInputError(
                "the activations do not vary about their mean; there is nothing to fit."
            )
        return self

    def __call__(self, a: Tensor) -> Tensor:
        return (a - self.mean_.to(a)) / self.scale_

    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return g / self.scale_

    def restrict(self, basis: Tensor, extra: int) -> Inputs:
        # The mean of the further coordinates may be anything: functions do not depend on them.
        restricted = Centred()
        restricted.mean_ = torch.nn.functional.pad(self.mean_.to(basis) @ basis, (0, extra))
        restricted.scale_ = self.scale_
        return restricted


class Standardized(Inputs):
    """``x = (a - μ)/s`` with a spread s of each coordinate's own, such that ‖x‖² is 1 in the mean.

    In language models one or two coordinates may hold most of what activations vary by. For
    `Centred` inputs the others are then small, and a regularised classifier hardly sees them.

    Parameters:
        damping: added to the variance of each coordinate, in median variances. With 0 every
            coordinate counts alike, so that some that hardly vary weigh as much as the others, and
            gradients, which divide by s, point along them. With 1 no coordinate is enlarged by
            more than the median one.

    Learned: ``mean_`` and ``scale_`` s, `[d]`. Quadratic functions of these inputs are learned
    as functions of `Centred` ones.
    """

    mean_: Tensor
    scale_: Tensor

    def __init__(self, damping: float = 0.0) -> None:
        self.damping = damping

    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        if not 0 <= self.damping < math.inf:
            raise InvalidInputError(
                f"damping must be a number of median variances from 0 on, not {self.damping!r}."
            )
        self.forget()
        mean = _weighted_mean(a, weights)
        variance = torch.zeros_like(mean)
        for block, counts in _blocks(a, weights):
            square = (block.double() - mean).square()
            variance += (square if counts is None else square * counts).sum(dim=0) / len(a)
        total = float(variance.sum().sqrt())
        if not total > 0:
            raise InvalidInputError(
                "the activations do not vary about their mean; there is nothing to fit."
            )
        # A coordinate that does not vary gets no weight from a classifier, whatever its scale.
        damped = variance + self.damping * variance.median() + (1e-6 * total) ** 2
        self.scale_ = (damped * (variance / damped).sum()).sqrt().to(a)
        self.mean_ = mean.to(a)
        return self

    def __call__(self, a: Tensor) -> Tensor:
        return (a - self.mean_.to(a)) / self.scale_.to(a)

    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return g / self.scale_.to(a)

    def merged(self, function: QuadraticFunction) -> tuple[Inputs, QuadraticFunction]:
        inputs = Centred()
        inputs.mean_, inputs.scale_ = self.mean_, 1.0
        return inputs, function.of_standardized(torch.zeros_like(self.mean_), self.scale_)


class StandardizedSphere(Inputs):
    """``x = (a/‖a‖ - μ)/s``: the direction, from the mean direction μ, in units of its spread s.

    Functions of it see directions, like those of `UnitSphere`, and their flows keep ‖a‖. But how
    strongly a classifier is regularised no longer depends on how far apart the directions are,
    which in language models with a few large coordinates is a small fraction of a radian.

    Parameters:
        coordinatewise: whether each coordinate has a spread of its own, its standard deviation
            times √d; otherwise s is one number, the root mean square distance of directions to μ,
            and rotations of the activations change nothing. Both have ‖x‖² = 1 in the mean.

    Learned: ``mean_`` `[d]`, ``scale_`` `[1]` or `[d]`.
    """

    radial: ClassVar[bool] = True

    mean_: Tensor
    scale_: Tensor

    def __init__(self, coordinatewise: bool = False) -> None:
        self.coordinatewise = coordinatewise

    def fit(self, a: Tensor, weights: Tensor | None = None) -> Self:
        self.forget()
        mean = _weighted_mean(a, weights, directions=True)
        variance = torch.zeros_like(mean)
        for block, counts in _blocks(a, weights):
            square = (block.double() * _inverse_norm(block.double()) - mean).square()
            variance += (square if counts is None else square * counts).sum(dim=0) / len(a)
        total = variance.sum().sqrt()
        if not float(total) > 4 * torch.finfo(a.dtype).eps:
            raise InvalidInputError(
                "the directions of the activations do not vary; there is nothing to fit."
            )
        self.mean_, self.scale_ = mean.to(a), total[None].to(a)
        if self.coordinatewise:
            # A coordinate that does not vary gets no weight from a classifier, whatever its scale.
            spread = (len(mean) * variance).sqrt()
            self.scale_ = spread.clamp_min(1e-6 * total).to(a)
        return self

    def __call__(self, a: Tensor) -> Tensor:
        return (a * _inverse_norm(a) - self.mean_.to(a)) / self.scale_.to(a)

    def pull_back(self, a: Tensor, x: Tensor, g: Tensor) -> Tensor:
        inverse = _inverse_norm(a)
        direction, g = a * inverse, g / self.scale_.to(a)
        return (g - (g * direction).sum(-1, keepdim=True) * direction) * inverse

    def merged(self, function: QuadraticFunction) -> tuple[Inputs, QuadraticFunction]:
        return UnitSphere(), function.of_standardized(self.mean_, self.scale_)


def _blocks(a: Tensor, weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows of ``a`` and their weights `[m, 1]`, a few thousand at a time."""
    for start in range(0, len(a), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield a[rows], None if weights is None else weights[rows, None].to(a.device)


def _weighted_mean(a: Tensor, weights: Tensor | None, directions: bool = False) -> Tensor:
    """The mean `[d]` in float64 of activations, or of their directions."""
    total = torch.zeros_like(a[0], dtype=torch.float64)
    for block, counts in _blocks(a, weights):
        block = block.double()
        block = block * _inverse_norm(block) if directions else block
        total += (block if counts is None else block * counts).sum(dim=0)
    return total / len(a)


def _inverse_norm(a: Tensor) -> Tensor:
    """1/‖a‖ `[..., 1]`, and 0 for the zero vector."""
    norm: Tensor = a.norm(dim=-1, keepdim=True)
    return (norm > 0) / norm.clamp_min(torch.finfo(a.dtype).tiny)
