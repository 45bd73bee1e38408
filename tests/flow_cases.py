"""Solvers of every kind, and flows of barriers that need no fit."""

import torch

from odesteer.barriers import Inputs
from odesteer.barriers.composed import FixedBarrier
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.flows import (
    RK4,
    BogackiShampine,
    Certified,
    Euler,
    FixedStep,
    Geodesic,
    Midpoint,
    Solver,
    ThreeEighths,
    VectorField,
)


class AffineField(VectorField):
    """v(a) = Aa + b, with A `[d, d]` and b `[d]`, whose solution is known."""

    def __init__(self, matrix: torch.Tensor, offset: torch.Tensor) -> None:
        self.matrix = matrix
        self.offset = offset

    def __call__(self, a: torch.Tensor) -> torch.Tensor:
        return a @ self.matrix.to(a).T + self.offset.to(a)


class StepwiseEuler(FixedStep):
    """Explicit Euler in another class, for which flows of quadratics take no fused form."""

    order = 1
    stages = 1

    def step(
        self, field: VectorField, a: torch.Tensor, dt: torch.Tensor, slope: torch.Tensor
    ) -> torch.Tensor:
        return a + dt * slope


FIXED_STEP: dict[str, Solver] = {
    "euler": Euler(12),
    "euler-stepwise": StepwiseEuler(12),
    "midpoint": Midpoint(9),
    "rk4": RK4(6),
    "three-eighths": ThreeEighths(6),
    "geodesic": Geodesic(12),
}
SOLVERS: dict[str, Solver] = {
    **FIXED_STEP,
    "bogacki-shampine": BogackiShampine(rtol=1e-3),
    "certified-euler": Certified(Euler(12)),
    "certified-rk4": Certified(RK4(4)),
    "certified-geodesic": Certified(Geodesic(12)),
}


def quadratic_barrier(
    inputs: Inputs, width: int, rank: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> FixedBarrier:
    """A random quadratic function of given rank, of given inputs, in its eigenbasis."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(drawn)[0]
    curvature, slope = torch.randn(2, rank, generator=generator, dtype=torch.float64)
    function = QuadraticFunction.of(basis, curvature, slope / rank**0.5, 0.3)
    return FixedBarrier.of(inputs, function.to(dtype=dtype))
