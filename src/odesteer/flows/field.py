"""Vector fields v: R^d -> R^d: of a gradient, constant, tangent, sums."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.barriers import Barrier
from odesteer.errors import InvalidInputError
from odesteer.flows.metrics import Euclidean, Metric


class VectorField(ABC):
    """The right-hand side of da/dt = v(a)."""

    @abstractmethod
    def __call__(self, a: Tensor) -> Tensor:
        """v(a), `[..., d] -> [..., d]`."""


class GradientField(VectorField):
    """v = G∇h/‖G∇h‖ (arXiv 2602.17560, equation 8, for G = I); zero where the gradient is.

    Unit speed: time is arc length, in activation units. Only gradients so short that their
    squares leave the range of the type give less.
    """

    def __init__(self, barrier: Barrier, metric: Metric = Euclidean()) -> None:
        self.barrier = barrier
        self.metric = metric

    def __call__(self, a: Tensor) -> Tensor:
        return self.with_value(a)[1]

    def with_value(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """h(a) `[...]` and v(a) `[..., d]`, which share work."""
        value, velocity, _ = self.with_value_and_rate(a)
        return value, velocity

    def with_value_and_rate(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `with_value`, and dh/dt = ∇h·v at a, `[...]`; ‖∇h‖ in the Euclidean metric."""
        value, gradient = self.barrier.value_and_gradient(a)
        ascent = self.metric.apply(gradient)
        length = ascent.norm(dim=-1, keepdim=True)
        # Below this the squares underflow, and a smaller divisor would make noise long.
        shortest = math.sqrt(torch.finfo(a.dtype).tiny)
        velocity = ascent / length.clamp_min(shortest)
        return value, velocity, (gradient * velocity).sum(dim=-1)


class PlainGradientField(GradientField):
    """v = ρ∇h, not normalised: fast where h is steep, still where it is flat.

    ``rate`` ρ > 0 is in activation units² per nat; time has no unit.
    """

    def __init__(self, barrier: Barrier, rate: float) -> None:
        super().__init__(barrier)
        self.rate = rate

    def with_value_and_rate(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient = self.barrier.value_and_gradient(a)
        velocity = self.rate * gradient
        return value, velocity, (gradient * velocity).sum(dim=-1)


class ConstantField(VectorField):
    """v(a) = w for every a, `[d]`; speed ‖w‖."""

    def __init__(self, direction: Tensor) -> None:
        self.direction = direction

    def __call__(self, a: Tensor) -> Tensor:
        return self.direction.to(a).expand_as(a)


class TangentField(VectorField):
    """The part of a field across ``a``: v(a) - (v(a)·â)â with â = a/‖a‖, which keeps ‖a‖."""

    def __init__(self, field: VectorField) -> None:
        self.field = field

    def __call__(self, a: Tensor) -> Tensor:
        v, unit = self.field(a), torch.nn.functional.normalize(a, dim=-1)
        return v - (v * unit).sum(dim=-1, keepdim=True) * unit


class SumField(VectorField):
    """A weighted sum of fields."""

    def __init__(self, fields: Sequence[VectorField], weights: Sequence[float]) -> None:
        if len(fields) != len(weights):
            raise InvalidInputError(
                f"a sum of fields got {len(fields)} fields and {len(weights)} weights; give a"
                " weight to each."
            )
        self.fields = tuple(fields)
        self.weights = tuple(weights)

    def __call__(self, a: Tensor) -> Tensor:
        total = torch.zeros_like(a)
        for weight, field in zip(self.weights, self.fields, strict=True):
            total = total + weight * field(a)
        return total
