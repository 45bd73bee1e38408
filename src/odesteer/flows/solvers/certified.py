"""Certified steps: a fixed-step solver whose steps are rejected where they lower the barrier."""

from odesteer.errors import InvalidInputError
from odesteer.flows.solvers.base import FixedStep, Solver, check_count
from odesteer.flows.solvers.explicit import Euler


class Certified(Solver):
    """Another solver's steps, each checked: a step that would move h the wrong way is rejected.

    A rejected step is tried again at half the size; an accepted one lets the size double again up
    to the inner solver's own. So h never falls along the discrete trajectory (when steering up),
    and {h ≥ c} is never left: discrete forward invariance. An activation for which no step of at
    least 2⁻²⁰ of the nominal size raises h is at a maximum and stays.

    Parameters:
        solver: the fixed-step solver that proposes steps.
        max_steps: attempts after which the solver gives up: with an error, or, in a flow that
            stops at a value, short of the value.
    """

    step_parameters = ("max_steps",)

    def __init__(self, solver: FixedStep = Euler(), max_steps: int = 1000) -> None:
        self.solver = solver
        self.max_steps = max_steps

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.solver.order

    @property
    def stages(self) -> int:  # type: ignore[override]
        return self.solver.stages

    @property
    def spherical(self) -> bool:  # type: ignore[override]
        return self.solver.spherical

    def check(self) -> None:
        if not isinstance(self.solver, FixedStep):
            raise InvalidInputError(
                f"Certified takes a fixed-step solver, not {self.solver!r};"
                " use for example Certified(Euler(10))."
            )
        self.solver.check()
        check_count("max_steps", self.max_steps)
