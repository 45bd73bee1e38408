"""Solver loops: equal steps for all activations, and steps whose size each one chooses."""

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError
from odesteer.flows.crossing import locate
from odesteer.flows.problem import Problem, Solution
from odesteer.flows.solvers import Certified, EmbeddedPair, FixedStep

Record = list[
    tuple[Tensor, Tensor]
]  # time `[n]` and state `[n, k]` before each step and at the end

_SMALLEST_STEP = 2.0**-20  # relative to the nominal step


def equal_steps(problem: Problem, solver: FixedStep, record: Record | None) -> Solution:
    """All steps of one size for each activation, without a data-dependent branch."""
    dt = (problem.duration / solver.n_steps)[:, None]
    size = dt[:, 0].abs()
    if problem.until is not None:
        return _equal_steps_to_value(problem, solver, dt, record)
    a, taken = problem.state, torch.zeros_like(problem.duration)
    for _ in range(solver.n_steps):
        if record is not None:
            record.append((taken, a))
        a = problem.step(solver, a, dt, problem.evaluate(a)[1])
        taken = taken + size
    if record is not None:
        record.append((taken, a))
    return Solution(a, taken)


def _equal_steps_to_value(
    problem: Problem, solver: FixedStep, dt: Tensor, record: Record | None
) -> Solution:
    """Steps until the value is reached; states stay at the start of the step that crosses it."""
    assert problem.until is not None
    a, size, passed = problem.state, dt[:, 0].abs(), []
    h, slope = problem.evaluate(a)
    taken = torch.zeros_like(problem.duration)
    moving = ~problem.until.holds(h, problem.sign)
    crossed = torch.zeros_like(moving)
    for _ in range(solver.n_steps):
        if record is not None:
            record.append((taken, a))
        trial = problem.step(solver, a, dt, slope)
        trial_h, trial_slope = problem.evaluate(trial)
        crosses = moving & problem.until.holds(trial_h, problem.sign)
        moving, crossed = moving & ~crosses, crossed | crosses
        a = torch.where(moving[:, None], trial, a)
        h = torch.where(moving, trial_h, h)
        slope = torch.where(moving[:, None], trial_slope, slope)
        taken = torch.where(moving, taken + size, taken)
        passed.append(crossed)
    located, fraction = locate(problem, solver, a, dt, slope, h)
    solution = Solution(
        torch.where(crossed[:, None], located, a),
        torch.where(crossed, taken + fraction * size, taken),
        reached=~moving,
    )
    if record is not None:
        # From its crossing on, an activation rests where it was located.
        record[1:] = [
            (
                torch.where(there, solution.time, time),
                torch.where(there[:, None], solution.state, state),
            )
            for there, (time, state) in zip(passed, record[1:], strict=False)
        ]
        record.append((solution.time, solution.state))
    return solution


def adaptive_steps(
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
            trial = problem.step(solver, a, dt, slope)
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
                located, fraction = locate(problem, solver, a, dt, slope, h)
                a = torch.where(crossed[:, None], located, a)
                taken = torch.where(crossed, taken + fraction * size, taken)
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
