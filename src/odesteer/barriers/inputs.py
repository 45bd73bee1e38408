"""What a barrier looks at: maps x(a) from activations to the space its function lives in."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

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
    def fit(self, a: Tensor) -> Self:
        """Learn from the activations of both classes, `[n, d]`."""

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


class Raw(Inputs):
    """The activation itself."""

    def fit(self, a: Tensor) -> Self:
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

    def fit(self, a: Tensor) -> Self:
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

    def fit(self, a: Tensor) -> Self:
        self.forget()
        self.mean_ = a.mean(dim=0)
        total = 0.0
        for block in torch.split(a, _BLOCK):
            total += float((block - self.mean_).double().square().sum())
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


def _inverse_norm(a: Tensor) -> Tensor:
    """1/‖a‖ `[..., 1]`, and 0 for the zero vector."""
    norm: Tensor = a.norm(dim=-1, keepdim=True)
    return (norm > 0) / norm.clamp_min(torch.finfo(a.dtype).tiny)
