"""A flow to be solved in a flat batch, and one step of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.flows.event import ReachValue
from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.solvers import Certified, EmbeddedPair, FixedStep, Solver


@dataclass(frozen=True)
class Problem:
    """A flow of a flat batch `[n, k]`; ``duration`` `[n]`, signed, and ``norm`` ‖a‖ `[n]`."""

    field: VectorField
    state: Tensor
    duration: Tensor
    until: ReachValue | None
    norm: Tensor

    @property
    def sign(self) -> Tensor:
        return torch.where(self.duration < 0, -1.0, 1.0).to(self.duration)

    def evaluate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """h(a) `[n]`, where it is needed, and v(a) `[n, k]`."""
        if isinstance(self.field, GradientField):
            return self.field.with_value(a)
        return a.new_zeros(len(a)), self.field(a)

    def excess(self, a: Tensor) -> Tensor:
        """How far past the value to reach h(a) is, `[n]`; without its gradient."""
        assert self.until is not None
        assert isinstance(self.field, GradientField)
        return self.until.excess(self.field.barrier.value(a), self.sign)

    def stepped(self, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        """The state `[n, k]` after one step of size ``dt`` `[n, 1]` from ``a``, where v is
        ``slope``."""
        if isinstance(solver, Certified):
            solver = solver.solver
        if isinstance(solver, EmbeddedPair):
            return solver.step_with_error(self.field, a, dt, slope)[0]
        assert isinstance(solver, FixedStep)
        state = solver.step(self.field, a, dt, slope)
        if solver.spherical:
            # To the norm at the start, so that rounding does not add up over many steps.
            state = state * (self.norm / state.norm(dim=-1))[:, None]
        return state
