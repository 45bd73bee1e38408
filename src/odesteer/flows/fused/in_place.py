"""Flows that move a few activations where they lie, prepared once for many steps of decoding."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from odesteer.barriers import Barrier, FrozenBarrier
from odesteer.barriers.composed import ComposedBarrier
from odesteer.flows import fused
from odesteer.flows.event import ReachValue
from odesteer.flows.field import GradientField
from odesteer.flows.fused.diagonal import DiagonalFlow, as_float64, diagonal_flow
from odesteer.flows.metrics import Euclidean
from odesteer.flows.solution import Solution
from odesteer.flows.solvers import Euler, Solver

# For more steps, sums are the faster way.
_MOST_STEPS = 63
# Numbers multiplied in a product with the basis, above which a library's product is faster than
# the compiled loop.
LARGE = 1_000_000


class FlowInPlace(ABC):
    """Moves activations where they lie as `solve` would have, to rounding."""

    @abstractmethod
    def over(self, rows: Tensor | None) -> "FlowInPlace":
        """The same for other activations: the ``rows`` `[n]` of a batch (None: all, in order)."""

    @abstractmethod
    def move(self, states: Tensor) -> bool:
        """Move activations `[batch, 1, d]`; False, with nothing done, for types and layouts
        that it does not know."""

    @abstractmethod
    def account(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Time, reached and usable of what was last moved, each `[n]`, as in `Solution`."""

    def solve(self, a: Tensor) -> Solution | None:
        """As `move` for activations `[n, 1, d]` that stay as they are, with the account."""
        if a.requires_grad and torch.is_grad_enabled():
            return None
        state = a.detach().clone(memory_format=torch.contiguous_format)
        if not self.move(state):
            return None
        time, reached, usable = (None if part is None else part[:, None] for part in self.account())
        assert time is not None
        return Solution(state, time, reached, usable=usable)


def flow_in_place(
    field: GradientField,
    solver: Solver,
    duration: float | Tensor,
    until: ReachValue | None,
    n: int,
    device: torch.device,
) -> FlowInPlace | None:
    """The flow of ``n`` activations prepared, for explicit Euler on a quadratic barrier.

    ``duration`` and the value of ``until`` are numbers or `[n, 1]`. None where no form applies.
    """
    barrier: Barrier = field.barrier
    while isinstance(barrier, FrozenBarrier):
        barrier = barrier.barrier
    if (
        not isinstance(solver, Euler)
        or not isinstance(field.metric, Euclidean)
        or not isinstance(barrier, ComposedBarrier)
        or solver.n_steps > _MOST_STEPS
    ):
        return None
    restriction = barrier.restrict(torch.empty(0, barrier.width_, device=device))
    basis = getattr(barrier.function_, "basis_", None)
    if restriction is None or basis is None or basis.dtype != torch.float32:
        return None
    flow = diagonal_flow(restriction.barrier)
    if flow is None:
        return None
    value = None if until is None else _per_row(until.value, n)
    prepared = basis, flow, solver.n_steps, _per_row(duration, n), value
    if device.type == "cpu":
        return _OnHost(*prepared) if fused.has_numba() else None
    if device.type == "cuda":
        return _on_device(*prepared) if fused.has_triton() else None
    return None


def _on_device(*prepared: Any) -> FlowInPlace:
    from odesteer.flows.fused.gpu import OnDevice

    return OnDevice(*prepared)


class _OnHost(FlowInPlace):
    """float32 on the CPU, by `TokenFlow`."""

    def __init__(
        self,
        basis: Tensor,
        flow: DiagonalFlow,
        n_steps: int,
        duration: Tensor,
        value: Tensor | None,
        rows: Tensor | None = None,
    ) -> None:
        from odesteer.flows.fused.tokens import TokenFlow

        self._parts = basis, flow, n_steps, duration, value
        self._basis = basis.detach()
        self._width = basis.shape[0]
        self._rows = rows
        numbers = torch.arange(len(duration)) if rows is None else rows
        self._flow = TokenFlow(
            self._basis.numpy(),
            as_float64(flow.curvature).numpy(),
            as_float64(flow.slope).numpy(),
            flow.offset,
            flow.radial,
            as_float64(duration).numpy(),
            n_steps,
            None if value is None else as_float64(value).numpy(),
            numbers.numpy(),
        )
        self._move = self._flow.move
        self._coordinates = torch.from_numpy(self._flow.coordinates)
        self._lifted = torch.from_numpy(self._flow.lifted)
        self._is_large = self._coordinates.numel() * self._width > LARGE

    def over(self, rows: Tensor | None) -> "FlowInPlace":
        return _OnHost(*self._parts, rows)

    def move(self, states: Tensor) -> bool:
        if (
            type(states) is not Tensor
            or states.dtype is not torch.float32
            or not states.is_cpu
            or not states.is_contiguous()
        ):
            return False
        if self._is_large:
            self._move_by_products(states)
        else:
            self._move(states.data_ptr(), self._width)
        return True

    def _move_by_products(self, states: Tensor) -> None:
        address, rows = states.data_ptr(), self._rows
        flat = states.view(-1, self._width)
        torch.mm(flat if rows is None else flat[rows], self._basis, out=self._coordinates)
        self._flow.step(address, self._width)
        torch.mm(self._coordinates, self._basis.T, out=self._lifted)
        self._flow.land(address, self._width)

    def account(self) -> tuple[Tensor, Tensor | None, Tensor]:
        flow, stops = self._flow, self._parts[-1] is not None
        reached = torch.from_numpy(flow.reached.copy()) if stops else None
        time = torch.from_numpy(flow.time).float()
        return time, reached, torch.from_numpy(flow.usable.copy())


def _per_row(value: float | Tensor, n: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).flatten().expand(n).contiguous()
