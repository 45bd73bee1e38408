"""A flow to be solved: the event that ends it, the problem for a flat batch, the solution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.solvers import Certified, EmbeddedPair, FixedStep, Solver


@dataclass(frozen=True)
class ReachValue:
    """Stop each activation at the first time its barrier reaches a value.

    A flow that steers up (positive T) stops at h ≥ ``value``, one that steers down at h ≤
    ``value``; activations that are there at the start do not move.

    Attributes:
        value: τ in nats, a number or a tensor that broadcasts against the batch shape.
    """

    value: float | Tensor

    def holds(self, h: Tensor, sign: Tensor) -> Tensor:
        """Whether values ``h`` `[...]` are past τ in the direction of ``sign`` `[...]`."""
        return self.excess(h, sign) >= 0

    def excess(self, h: Tensor, sign: Tensor) -> Tensor:
        """How far past τ, in nats; negative before it."""
        return sign * (h - self.value)


@dataclass(frozen=True)
class Solution:
    """Activations after a flow, and what happened to each of them.

    Attributes:
        state: `[..., d]`, the activations at the end.
        time: `[...]`, the time travelled by each; arc length in activation units for unit fields.
        reached: `[...]` bool, whether the event (a value of the barrier) holds at the end; None
            where there was no event. Activations that ran to the cap instead are False.
        rejected: `[...]` int, steps that a step control rejected; None without one.
        usable: `[...]` bool, False for activations that are zero, NaN or infinite, or whose result
            does not fit their type; they are unchanged. None where this was not checked.
    """

    state: Tensor
    time: Tensor
    reached: Tensor | None = None
    rejected: Tensor | None = None
    usable: Tensor | None = None

    def reshape(self, shape: torch.Size) -> "Solution":
        """The same with batch dimensions ``shape``."""
        return Solution(
            self.state.reshape(*shape, self.state.shape[-1]),
            self.time.reshape(shape),
            None if self.reached is None else self.reached.reshape(shape),
            None if self.rejected is None else self.rejected.reshape(shape),
            None if self.usable is None else self.usable.reshape(shape),
        )

    def keep_unusable(self, a: Tensor, usable: Tensor) -> "Solution":
        """The solution in the type of ``a``, with the rows that are not ``usable`` put back.

        So are rows that are not finite in that type.
        """
        state = self.state.to(a.dtype)
        usable = usable & torch.isfinite(state).all(dim=-1)
        return Solution(
            state=torch.where(usable[..., None], state, a),
            time=torch.where(usable, self.time, 0.0),
            reached=None if self.reached is None else self.reached & usable,
            rejected=None if self.rejected is None else torch.where(usable, self.rejected, 0),
            usable=usable,
        )


@dataclass(frozen=True)
class Problem:
    """A flow of a flat batch.

    Attributes:
        field: v.
        state: the activations at the start `[n, k]`.
        duration: signed time to follow v, or the cap of a flow to a value `[n]`.
        until: where to stop before, None for a flow of a fixed time.
        norm: ‖a‖ at the start in all coordinates `[n]`.
    """

    field: VectorField
    state: Tensor
    duration: Tensor
    until: ReachValue | None
    norm: Tensor

    @property
    def sign(self) -> Tensor:
        """1 for flows up the barrier and -1 for flows down, `[n]`."""
        return torch.where(self.duration < 0, -1.0, 1.0).to(self.duration)

    def evaluate(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """h(a) `[n]` (zero for fields without a barrier) and v(a) `[n, k]`."""
        if isinstance(self.field, GradientField):
            return self.field.with_value(a)
        return a.new_zeros(len(a)), self.field(a)

    def evaluate_with_rate(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `evaluate`, and how fast h comes towards the value, dh/dt `[n]`."""
        if isinstance(self.field, GradientField):
            return self.field.with_value_and_rate(a)
        return (*self.evaluate(a), a.new_zeros(len(a)))

    def at_rest(self, slope: Tensor) -> Tensor:
        """Whether no time passes where v is ``slope`` `[n, k]`: where a gradient is zero, `[n]`.

        A gradient field has unit speed, and no direction there.
        """
        if isinstance(self.field, GradientField):
            return (slope == 0).all(dim=-1)
        return torch.zeros_like(self.duration, dtype=torch.bool)

    def excess(self, a: Tensor) -> Tensor:
        """How far past the value to reach h(a) is, `[n]`; without its gradient."""
        assert self.until is not None
        assert isinstance(self.field, GradientField)
        return self.until.excess(self.field.barrier.value(a), self.sign)

    def step(self, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
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
