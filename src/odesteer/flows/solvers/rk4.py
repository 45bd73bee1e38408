"""The two classical methods of order four."""

from typing import ClassVar

from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import FixedStep
from odesteer.flows.solvers.runge_kutta import Tableau, combine, stages


class RK4(FixedStep):
    """The classical Runge-Kutta method, order 4 (Kutta 1901)."""

    order = 4
    stages = 4
    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 2,), (0, 1 / 2), (0, 0, 1)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    )

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        return a + dt * combine(self.tableau.b, stages(self.tableau, field, a, dt, slope))


class ThreeEighths(RK4):
    """Kutta's 3/8-rule, order 4; some libraries call it ``rk4``.

    Hairer, Nørsett and Wanner, table II.1.2.
    """

    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 3,), (-1 / 3, 1), (1, -1, 1)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    )
