"""Explicit Euler."""

from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import FixedStep


class Euler(FixedStep):
    """Explicit Euler, order 1: the paper's solver (10 steps). One step is activation addition."""

    order = 1
    stages = 1

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        return a + dt * slope
