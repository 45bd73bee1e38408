"""Compiled flows of quadratic barriers: all Euler steps in one call, and the choice of device.

`fused_euler` solves a batch; `flow_in_place` prepares moving a few activations where they lie.
Both return None where no compiled implementation applies, and the caller takes the steps one by
one; the results are the same to rounding.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from odesteer.barriers import Barrier, FrozenBarrier
from odesteer.barriers.composed import ComposedBarrier
from odesteer.flows.field import GradientField
from odesteer.flows.fused.base import FlowInPlace
from odesteer.flows.fused.diagonal import DiagonalFlow, diagonal_flow
from odesteer.flows.metrics import Euclidean
from odesteer.flows.problem import ReachValue, Solution
from odesteer.flows.solvers import Euler, Solver

__all__ = [
    "DiagonalFlow",
    "FlowInPlace",
    "diagonal_flow",
    "flow_in_place",
    "fused_euler",
    "has_numba",
    "has_triton",
]


def fused_euler(
    flow: DiagonalFlow,
    state: Tensor,
    duration: Tensor,
    solver: Euler,
    until: ReachValue | None,
) -> Solution | None:
    """Explicit Euler from ``state`` `[n, k]` for a signed ``duration`` `[n]`, or None.

    Needs the CPU, numba (``odesteer[fast]``) and tensors that record no gradient.
    """
    if state.device.type != "cpu" or not has_numba():
        return None
    if torch.compiler.is_compiling() or _records_gradient(flow, state, duration, until):
        return None
    from odesteer.flows.fused.cpu import euler

    return euler(flow, state, duration, solver, until)


def flow_in_place(
    field: GradientField,
    solver: Solver,
    duration: float | Tensor,
    until: ReachValue | None,
    n: int,
    device: torch.device,
) -> FlowInPlace | None:
    """The flow of ``n`` activations prepared, for explicit Euler on a quadratic barrier, or None.

    ``duration`` and the value of ``until`` are numbers or `[n, 1]`.
    """
    barrier: Barrier = field.barrier
    while isinstance(barrier, FrozenBarrier):
        barrier = barrier.barrier
    if (
        not isinstance(solver, Euler)
        or not isinstance(field.metric, Euclidean)
        or not isinstance(barrier, ComposedBarrier)
    ):
        return None
    restriction = barrier.restrict(torch.empty(0, barrier.width_, device=device))
    basis = getattr(barrier.function_, "basis_", None)
    if restriction is None or basis is None or basis.dtype != torch.float32:
        return None
    flow = diagonal_flow(restriction.barrier)
    if flow is None:
        return None
    if _records_gradient(flow, basis, duration, until):
        return None
    value = None if until is None else _per_row(until.value, n)
    return _on_device(device, basis, flow, solver, _per_row(duration, n), value)


def _on_device(
    device: torch.device,
    basis: Tensor,
    flow: DiagonalFlow,
    solver: Euler,
    duration: Tensor,
    value: Tensor | None,
) -> FlowInPlace | None:
    if device.type == "cpu" and has_numba():
        from odesteer.flows.fused.in_place_cpu import InPlaceOnCPU

        return InPlaceOnCPU(basis, flow, solver, duration, value)
    if device.type == "cuda" and has_triton():
        from odesteer.flows.fused.in_place_gpu import InPlaceOnGPU

        return InPlaceOnGPU(basis, flow, solver, duration, value)
    return None


def _records_gradient(
    flow: DiagonalFlow, state: Tensor, duration: float | Tensor, until: ReachValue | None
) -> bool:
    value = None if until is None else until.value
    tensors = (flow.curvature, flow.slope, state, duration, value)
    return torch.is_grad_enabled() and any(
        isinstance(tensor, Tensor) and tensor.requires_grad for tensor in tensors
    )


def _per_row(value: float | Tensor, n: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).flatten().expand(n).contiguous()


@cache
def has_numba() -> bool:
    """Whether the loops for CPUs can be compiled here."""
    return find_spec("numba") is not None


@cache
def has_triton() -> bool:
    """Whether the kernels for GPUs can be compiled here."""
    return find_spec("triton") is not None
