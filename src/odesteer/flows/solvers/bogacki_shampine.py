"""The Bogacki-Shampine pair."""

from typing import ClassVar

from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import EmbeddedPair
from odesteer.flows.solvers.runge_kutta import Tableau, combine, stages


class BogackiShampine(EmbeddedPair):
    """The 3(2) pair of Bogacki and Shampine (Appl. Math. Lett. 1989), MATLAB's ``ode23``.

    Order 3, advanced with the third-order solution; four evaluations a step.
    """

    order = 3
    stages = 4
    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0),
        b_error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    )

    def step_with_error(
        self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        values = stages(self.tableau, field, a, dt, slope)
        error = combine(self.tableau.b_error or (), values)
        return a + dt * combine(self.tableau.b, values), dt * error
