"""The explicit midpoint rule."""

from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import FixedStep


class Midpoint(FixedStep):
    """The explicit midpoint rule (modified Euler, Runge 1895), order 2.

    Hairer, Nørsett and Wanner, section II.1.
    """

    order = 2
    stages = 2

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        return a + dt * field(a + (dt / 2) * slope)
