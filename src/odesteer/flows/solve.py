"""Solving da/dt = v(a) for a batch of activations: checks, restriction to a subspace, results."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.fused import DiagonalFlow, diagonal_flow, fused_euler
from odesteer.flows.loops import Record, adaptive_steps, fixed_steps
from odesteer.flows.metrics import Euclidean
from odesteer.flows.problem import Problem, ReachValue, Solution
from odesteer.flows.solvers import Certified, Euler, FixedStep, Solver

Lift = Callable[[Tensor], Tensor]


def solve(
    field: VectorField,
    a: Tensor,
    T: float | Tensor,
    solver: Solver,
    *,
    until: ReachValue | None = None,
) -> Solution:
    """Follow ``field`` from activations ``a`` `[..., d]` (float32 or float64) for a time ``T``.

    ``T`` is a number or broadcasts against `[...]`; a negative one follows the field backwards.
    With ``until`` each activation stops where its barrier reaches the value; the crossing is
    located within the step, never overshot by more than rounding, and T is only a cap. Fields of
    quadratic barriers are solved in the few coordinates of their eigenbasis, where the cost of a
    step does not depend on d. Activations for which no time passes come back to the bit.

    Raises `InvalidInputError` for arguments that do not fit, and `ConvergenceError` if a
    step-size control gives up before T; before a value is reached it ends there instead, like
    the cap.
    """
    return solve_recorded(field, a, T, solver, until, record=None)


def solve_recorded(
    field: VectorField,
    a: Tensor,
    T: float | Tensor,
    solver: Solver,
    until: ReachValue | None,
    record: Record | None,
) -> Solution:
    """As `solve`; appends the time and state before each step and at the end to ``record``."""
    start, duration, until = _checked(field, a, T, solver, until)
    shape = a.shape[:-1]
    inner, state, lift = _restricted(field, solver, start)
    flow = _diagonal(inner, solver) if record is None else None
    solution = None
    if flow is not None:
        solution = fused_euler(flow, state, duration, solver, until)  # type: ignore[arg-type]
    if solution is None:
        problem = Problem(inner, state, duration, until, start.norm(dim=-1))
        loop = fixed_steps if isinstance(solver, FixedStep) else adaptive_steps
        solution = loop(problem, solver, record)  # type: ignore[arg-type]
    if lift is not None:
        solution = replace(solution, state=lift(solution.state))
        if record is not None:
            record[:] = [(time, lift(state)) for time, state in record]
        if isinstance(solver, Certified) and isinstance(field, GradientField):
            solution = _certify(field, start, duration, solution)
    solution = replace(solution, state=_unless_still(start, solution.state, solution.time))
    if record is not None:
        record[:] = [
            (time.reshape(shape), _unless_still(start, state, time).reshape(a.shape))
            for time, state in record
        ]
    return solution.reshape(shape)


def _checked(
    field: VectorField, a: Tensor, T: float | Tensor, solver: Solver, until: ReachValue | None
) -> tuple[Tensor, Tensor, ReachValue | None]:
    """Arguments checked and flattened: activations `[n, d]`, T `[n]` and the value to stop at."""
    solver.check()
    if (until is not None or isinstance(solver, Certified)) and not isinstance(
        field, GradientField
    ):
        raise InvalidInputError(
            f"{'stopping at a value' if until else 'a certificate'} needs the gradient field of a"
            f" barrier, not {type(field).__name__}."
        )
    if a.ndim < 1 or a.dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"a flow starts from float32 or float64 activations [..., d], not {a.dtype} of shape"
            f" {tuple(a.shape)}."
        )
    shape = a.shape[:-1]
    duration = _per_row("T", torch.as_tensor(T, dtype=a.dtype, device=a.device), shape)
    if until is not None:
        value = torch.as_tensor(until.value, dtype=a.dtype, device=a.device)
        until = ReachValue(_per_row("the value to reach", value, shape))
    return a.reshape(-1, a.shape[-1]), duration, until


def _restricted(
    field: VectorField, solver: Solver, state: Tensor
) -> tuple[VectorField, Tensor, Lift | None]:
    """The flow through ``state`` `[n, d]` in an invariant subspace `[n, k]`, and the lift back.

    Where there is no such subspace, field and state as they are, and None.
    """
    if isinstance(field, GradientField) and isinstance(field.metric, Euclidean):
        restriction = field.barrier.restrict(state, radial=solver.spherical)
        if restriction is not None:
            within = GradientField(restriction.barrier, field.metric)
            return within, restriction.state, restriction.lift
    return field, state, None


def _diagonal(field: VectorField, solver: Solver) -> DiagonalFlow | None:
    """The flow in the form that `fused_euler` takes; None where it has no such form."""
    if torch.compiler.is_compiling() or not isinstance(solver, Euler):
        return None
    return diagonal_flow(field.barrier) if isinstance(field, GradientField) else None


def _per_row(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """``value`` for each activation of a batch of ``shape``, `[n]`."""
    try:
        return value.expand(shape).reshape(-1)
    except RuntimeError:
        raise InvalidInputError(
            f"{name} has shape {tuple(value.shape)}, which does not broadcast against a batch of"
            f" shape {tuple(shape)}."
        ) from None


def _unless_still(start: Tensor, state: Tensor, time: Tensor) -> Tensor:
    """``state`` `[n, d]`, but ``start`` to the bit where no time has passed."""
    return torch.where((time > 0)[:, None], state, start)


def _certify(field: GradientField, start: Tensor, duration: Tensor, solution: Solution) -> Solution:
    """Check the certificate again in all coordinates.

    The steps were certified in the coordinates of the subspace. A rise of h that is smaller than
    the rounding of the lift would be lost; such activations stay where they were.
    """
    rise = field.barrier.value(solution.state) - field.barrier.value(start)
    risen = torch.where(duration < 0, -rise, rise) >= 0
    return replace(
        solution,
        state=torch.where(risen[:, None], solution.state, start),
        time=solution.time * risen,
    )
