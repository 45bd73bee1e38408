"""Solver loops: a given number of steps for all activations, and steps that each one controls."""

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError
from odesteer.flows.crossing import locate
from odesteer.flows.problem import Problem, Solution
from odesteer.flows.solvers import Certified, EmbeddedPair, FixedStep

# Time `[n]` and state `[n, k]` before each step, and those at the end.
Record = list[tuple[Tensor, Tensor]]

_SMALLEST_STEP = 2.0**-20  # relative to the nominal step


def fixed_steps(problem: Problem, solver: FixedStep, record: Record | None) -> Solution:
    """Steps whose number does not depend on data, on a GPU without a look at any value."""
    if problem.until is not None:
        return _fixed_steps_to_value(problem, solver, record)
    dt = (problem.duration / solver.n_steps)[:, None]
    size = dt[:, 0].abs()
    a, taken = problem.state, torch.zeros_like(problem.duration)
    for _ in range(solver.n_steps):
        if record is not None:
            record.append((taken, a))
        slope = problem.evaluate(a)[1]
        a = problem.step(solver, a, dt, slope)
        taken = torch.where(problem.at_rest(slope), taken, taken + size)
    if record is not None:
        record.append((taken, a))
    return Solution(a, taken)


def _fixed_steps_to_value(problem: Problem, solver: FixedStep, record: Record | None) -> Solution:
    """Steps until the value is reached; states stay at the start of the step that crosses it."""
    assert problem.until is not None
    a, sign, passed = problem.state, problem.sign, []
    h, slope, rate = problem.evaluate_with_rate(a)
    taken = torch.zeros_like(problem.duration)
    reached = problem.until.holds(h, sign)
    moving, crossed = ~reached, torch.zeros_like(reached)
    last_size = taken  # of the step that crosses
    n_steps = 2 * solver.n_steps if solver.divides_distance else solver.n_steps
    for k in range(n_steps):
        size = problem.duration.abs() / solver.n_steps
        if solver.divides_distance:
            left, steps_left = _time_left(problem, taken, moving), solver.n_steps - k
            planned = left / (n_steps - k)
            if steps_left > 0:
                distance = _distance(problem, h, rate, left)
                planned = distance / steps_left
            if steps_left == 1:  # crosses the value where the estimate falls a little short
                planned = torch.minimum(2 * distance, left)
            size = torch.minimum(planned, size)
        if k >= solver.n_steps and _none(moving & (size > 0)):
            break
        if record is not None:
            record.append((taken, a))
        trial = problem.step(solver, a, (sign * size)[:, None], slope)
        trial_h, trial_slope, trial_rate = problem.evaluate_with_rate(trial)
        crosses = moving & problem.until.holds(trial_h, sign)
        last_size = torch.where(crosses, size, last_size)
        moving, crossed = moving & ~crosses & ~problem.at_rest(slope), crossed | crosses
        a = torch.where(moving[:, None], trial, a)
        h = torch.where(moving, trial_h, h)
        slope = torch.where(moving[:, None], trial_slope, slope)
        rate = torch.where(moving, trial_rate, rate)
        taken = torch.where(moving, taken + size, taken)
        passed.append(crossed)
    located, fraction = locate(problem, solver, a, (sign * last_size)[:, None], slope, h)
    solution = Solution(
        torch.where(crossed[:, None], located, a),
        torch.where(crossed, taken + fraction * last_size, taken),
        reached=reached | crossed,
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


def _time_left(problem: Problem, taken: Tensor, moving: Tensor) -> Tensor:
    """Of the cap, `[n]`; nothing for activations that are done, and for what is only rounding."""
    cap = problem.duration.abs()
    left = cap - taken
    return torch.where(moving & (left > _SMALLEST_STEP * cap), left, 0.0)


def _distance(problem: Problem, h: Tensor, rate: Tensor, left: Tensor) -> Tensor:
    """The time `[n]` after which h, if it changed at its present ``rate``, reached the value.

    At most the time that is ``left``.
    """
    assert problem.until is not None
    missing = -problem.until.excess(h, problem.sign)
    known = (left > 0) & (rate > 0) & torch.isfinite(rate)
    distance = torch.where(known, missing / torch.where(known, rate, 1.0), left)
    return torch.minimum(distance, left)


def _none(moving: Tensor) -> bool:
    """Whether all activations are done, where finding out costs no wait for a device."""
    on_cpu = moving.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_cpu and not bool(moving.any())


def adaptive_steps(
    problem: Problem, solver: EmbeddedPair | Certified, record: Record | None
) -> Solution:
    """Steps whose size each activation chooses for itself."""
    a, until, sign = problem.state, problem.until, problem.sign
    total = problem.duration.abs()
    h, slope, rate = problem.evaluate_with_rate(a)
    taken = torch.zeros_like(total)
    rejected = torch.zeros_like(total, dtype=torch.int64)
    n_taken = torch.zeros_like(rejected)
    reached = torch.zeros_like(total, dtype=torch.bool)
    if until is not None:
        reached = until.holds(h, sign)
    moving = ~reached & (total > 0) & ~problem.at_rest(slope)
    inner = solver.solver if isinstance(solver, Certified) else None
    usual = total / (10 if inner is None else inner.n_steps)
    plans = until is not None and inner is not None and inner.divides_distance

    def nominal_size() -> Tensor:
        """The size of the next step, if nothing is rejected; see `FixedStep`."""
        if not plans:
            return usual
        assert inner is not None
        left, steps_left = _time_left(problem, taken, moving), inner.n_steps - n_taken
        distance = _distance(problem, h, rate, left)
        planned = distance / steps_left.clamp_min(1)
        planned = torch.where(steps_left == 1, torch.minimum(2 * distance, left), planned)
        return torch.where(steps_left > 0, torch.minimum(planned, usual), usual)

    nominal = nominal_size()
    size = nominal.clone()
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
            trial_h, trial_slope, trial_rate = problem.evaluate_with_rate(trial)
            good = ratio <= 1
            factor = (0.9 * ratio.clamp_min(1e-10) ** (-1 / solver.order)).clamp(0.2, 5.0)
            next_size = size * factor
            # A flow into a maximum ends there, since the unit field has no value at it. To the
            # tolerance it is there when a step turns the field round and wins nothing.
            stuck = good & ((slope * trial_slope).sum(1) < 0) & (sign * (trial_h - h) < 0)
        else:
            trial = problem.step(solver, a, dt, slope)
            trial_h, trial_slope, trial_rate = problem.evaluate_with_rate(trial)
            good = sign * (trial_h - h) >= 0
            next_size = torch.where(good, 2 * size, size / 2)
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
        rate = torch.where(accepted, trial_rate, rate)
        taken = torch.where(accepted, taken + size, taken)
        n_taken = n_taken + accepted
        size = next_size
        if inner is not None:
            nominal = nominal_size()
            size = torch.minimum(size, nominal)
        moving = moving & ~stuck & (total - taken > _SMALLEST_STEP * usual)
        moving = moving & ~(accepted & problem.at_rest(slope))
        if record is not None and not torch.equal(before, taken):
            record.append((taken, a))
    if until is None and bool(moving.any()):
        raise ConvergenceError(
            f"{solver!r} took {solver.max_steps} attempts without reaching the end for"
            f" {int(moving.sum())} of {len(a)} activations; raise max_steps, or take"
            f" {'a smaller T' if isinstance(solver, Certified) else 'a larger rtol'}."
        )
    return Solution(a, taken, reached=None if until is None else reached, rejected=rejected)
