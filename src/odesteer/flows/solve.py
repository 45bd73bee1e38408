"""Solving da/dt = v(a) for a batch of activations."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.flows.equal_steps import Record, solve_fixed
from odesteer.flows.event import ReachValue
from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.fused import DiagonalFlow, diagonal_flow, fused_euler
from odesteer.flows.locating import locate
from odesteer.flows.metrics import Euclidean
from odesteer.flows.problem import Problem
from odesteer.flows.solution import Solution
from odesteer.flows.solvers import Certified, EmbeddedPair, Euler, FixedStep, Solver

_SMALLEST_STEP = 2.0**-20


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
    return _solve(field, a, T, solver, until, record=None)


def _solve(
    field: VectorField,
    a: Tensor,
    T: float | Tensor,
    solver: Solver,
    until: ReachValue | None,
    record: Record | None,
) -> Solution:
    start, duration, until = flat(field, a, T, solver, until)
    shape = a.shape[:-1]
    whole = field
    field, state, lift = restricted(field, solver, start)
    flow = diagonal(field, solver) if record is None else None
    solution = None
    if flow is not None:
        solution = fused_euler(flow, state, duration, solver.n_steps, until)  # type: ignore[attr-defined]
    if solution is None:
        run = solve_fixed if isinstance(solver, FixedStep) else _controlled
        problem = Problem(field, state, duration, until, start.norm(dim=-1))
        solution = run(problem, solver, record)  # type: ignore[arg-type]
    if lift is not None:
        solution = replace(solution, state=lift(solution.state))
        if record is not None:
            record[:] = [(time, lift(state)) for time, state in record]
        if isinstance(solver, Certified) and isinstance(whole, GradientField):
            solution = _certify(whole, start, duration, solution)
    solution = replace(solution, state=moved(start, solution.state, solution.time))
    if record is not None:
        record[:] = [
            (time.reshape(shape), moved(start, state, time).reshape(a.shape))
            for time, state in record
        ]
    return solution.reshape(shape)


def flat(
    field: VectorField, a: Tensor, T: float | Tensor, solver: Solver, until: ReachValue | None
) -> tuple[Tensor, Tensor, ReachValue | None]:
    """The activations `[n, d]`, and for each its T `[n]` and the value to stop at; all checked."""
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


def restricted(
    field: VectorField, solver: Solver, state: Tensor
) -> tuple[VectorField, Tensor, Lift | None]:
    """The flow through ``state`` `[n, d]` in an invariant subspace `[n, k]`, and the way back.

    Without a subspace the same, and None.
    """
    if isinstance(field, GradientField) and isinstance(field.metric, Euclidean):
        restriction = field.barrier.restrict(state, radial=solver.spherical)
        if restriction is not None:
            within = GradientField(restriction.barrier, field.metric)
            return within, restriction.state, restriction.lift
    return field, state, None


def diagonal(field: VectorField, solver: Solver) -> DiagonalFlow | None:
    """The flow whose steps can be taken in one call; None where there is no such form."""
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


def moved(start: Tensor, state: Tensor, time: Tensor) -> Tensor:
    """``state`` `[n, d]`, but ``start`` to the bit where no time has passed."""
    return torch.where((time > 0)[:, None], state, start)


def _certify(field: GradientField, start: Tensor, duration: Tensor, solution: Solution) -> Solution:
    """The certificate once more, in all coordinates.

    The steps were certified in the coordinates of the restriction. A rise of h below the rounding
    of the way back would not survive it; such activations stay where they were.
    """
    rise = field.barrier.value(solution.state) - field.barrier.value(start)
    risen = torch.where(duration < 0, -rise, rise) >= 0
    return replace(
        solution,
        state=torch.where(risen[:, None], solution.state, start),
        time=solution.time * risen,
    )


def _controlled(
    problem: Problem, solver: EmbeddedPair | Certified, record: Record | None
) -> Solution:
    """Steps whose size each activation chooses for itself."""
    a, until, sign = problem.state, problem.until, problem.sign
    total = problem.duration.abs()
    h, slope = problem.evaluate(a)
    nominal = total / (solver.solver.n_steps if isinstance(solver, Certified) else 10)
    size = nominal.clone()
    taken = torch.zeros_like(total)
    rejected = torch.zeros_like(total, dtype=torch.int64)
    reached = torch.zeros_like(total, dtype=torch.bool)
    if until is not None:
        reached = until.holds(h, sign)
    moving = ~reached & (total > 0)
    if record is not None:
        record.append((taken, a))
    for _ in range(solver.max_steps):
        if not bool(moving.any()):
            break
        before = taken
        size = torch.minimum(size, total - taken)
        dt = (sign * size)[:, None]
        if isinstance(solver, EmbeddedPair):
            trial, error = solver.step_with_error(problem.field, a, dt, slope)
            allowed = solver.atol + solver.rtol * problem.norm
            ratio = error.norm(dim=1) / allowed
            trial_h, trial_slope = problem.evaluate(trial)
            good = ratio <= 1
            factor = (0.9 * ratio.clamp_min(1e-10) ** (-1 / solver.order)).clamp(0.2, 5.0)
            next_size = size * factor
            # A flow into a maximum ends there, since the unit field has no value at it. To the
            # tolerance it is there when a step turns the field round and wins nothing.
            stuck = good & ((slope * trial_slope).sum(1) < 0) & (sign * (trial_h - h) < 0)
        else:
            trial = problem.stepped(solver, a, dt, slope)
            trial_h, trial_slope = problem.evaluate(trial)
            good = sign * (trial_h - h) >= 0
            next_size = torch.where(good, torch.minimum(2 * size, nominal), size / 2)
            # At a maximum either every step lowers h, or rounding makes some short one level.
            level = (trial_h == h) & (size < 0.99 * torch.minimum(nominal, total - taken))
            stuck = level | (~good & (next_size < _SMALLEST_STEP * nominal))
        accepted = moving & good & ~stuck
        rejected = rejected + (moving & ~good)
        if until is not None:
            crossed = accepted & until.holds(trial_h, sign)
            if bool(crossed.any()):
                located, share = locate(problem, solver, a, dt, slope, h)
                a = torch.where(crossed[:, None], located, a)
                taken = torch.where(crossed, taken + share * size, taken)
                reached = reached | crossed
                accepted, moving = accepted & ~crossed, moving & ~crossed
        a = torch.where(accepted[:, None], trial, a)
        h = torch.where(accepted, trial_h, h)
        slope = torch.where(accepted[:, None], trial_slope, slope)
        taken = torch.where(accepted, taken + size, taken)
        size = next_size
        moving = moving & ~stuck & (total - taken > _SMALLEST_STEP * nominal)
        if record is not None and not torch.equal(before, taken):
            record.append((taken, a))
    if until is None and bool(moving.any()):
        raise ConvergenceError(
            f"{solver!r} took {solver.max_steps} attempts without reaching the end for"
            f" {int(moving.sum())} of {len(a)} activations; raise max_steps, or take"
            f" {'a smaller T' if isinstance(solver, Certified) else 'a larger rtol'}."
        )
    return Solution(a, taken, reached=None if until is None else reached, rejected=rejected)
