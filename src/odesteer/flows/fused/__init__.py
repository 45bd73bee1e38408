"""All Euler steps of a flow in eigen-coordinates as one compiled call.

`fused_euler` returns None where no compiled form applies, and the caller takes the steps one by
one; both give the same result to rounding.
"""

from functools import cache
from importlib.util import find_spec

import torch

from odesteer.flows.event import ReachValue
from odesteer.flows.fused.diagonal import DiagonalFlow, diagonal_flow
from odesteer.flows.solution import Solution

__all__ = ["DiagonalFlow", "diagonal_flow", "fused_euler", "has_numba", "has_triton"]


def fused_euler(
    flow: DiagonalFlow,
    state: torch.Tensor,
    duration: torch.Tensor,
    n_steps: int,
    until: ReachValue | None,
) -> Solution | None:
    """Explicit Euler from ``state`` `[n, k]` for a signed ``duration`` `[n]`, if compiled here.

    On the CPU this needs numba (``odesteer[fast]``) and tensors that record no gradient.
    """
    if state.device.type != "cpu" or not has_numba():
        return None
    if torch.is_grad_enabled() and state.requires_grad:
        return None
    if torch.compiler.is_compiling():
        return None
    from odesteer.flows.fused.cpu import euler

    return euler(flow, state, duration, n_steps, until)


@cache
def has_numba() -> bool:
    """Whether the loops for CPUs can be built here."""
    return find_spec("numba") is not None


@cache
def has_triton() -> bool:
    """Whether the kernels for GPUs can be built here."""
    return find_spec("triton") is not None
