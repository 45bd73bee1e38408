"""Solving da/dt = v(a) for a batch of activations."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.flows.event import ReachValue
from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.fused import diagonal_flow, fused_euler
from odesteer.flows.metrics import Euclidean
from odesteer.flows.solution import Solution
from odesteer.flows.solvers import Certified, EmbeddedPair, Euler, FixedStep, Solver

# Ten give full accuracy in steps of up to about ‖a‖, the rest in steps of many times that.
_LOCATE_ITERATIONS = 20
_SMALLEST_STEP = 2.0**-20


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
    record: "list[tuple[Tensor, Tensor]] | None",
) -> Solution:
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
    state = start = a.reshape(-1, a.shape[-1])
    if until is not None:
        value = torch.as_tensor(until.value, dtype=a.dtype, device=a.device)
        until = ReachValue(_per_row("the value to reach", value, shape))
    whole = field
    lift = None
    if isinstance(field, GradientField) and isinstance(field.metric, Euclidean):
        restriction = field.barrier.restrict(state, radial=solver.spherical)
        if restriction is not None:
            field = GradientField(restriction.barrier)
            state, lift = restriction.state, restriction.lift
    solution = None
    if record is None and isinstance(solver, Euler) and isinstance(field, GradientField):
        flow = diagonal_flow(field.barrier)
        if flow is not None:
            solution = fused_euler(flow, state, duration, solver.n_steps, until)
    if solution is None:
        run = _fixed if isinstance(solver, FixedStep) else _controlled
        problem = _Problem(field, state, duration, until, start.norm(dim=-1))
        solution = run(problem, solver, record)  # type: ignore[arg-type]
    if lift is not None:
        solution = replace(solution, state=lift(solution.state))
        if record is not None:
            record[:] = [(time, lift(state)) for time, state in record]
        if isinstance(solver, Certified) and isinstance(whole, GradientField):
            solution = _certify(whole, start, duration, solution)
    solution = replace(solution, state=_moved(start, solution.state, solution.time))
    if record is not None:
        record[:] = [
            (time.reshape(shape), _moved(start, state, time).reshape(a.shape))
            for time, state in record
        ]
    return solution.reshape(shape)


def _per_row(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """``value`` for each activation of a batch of ``shape``, `[n]`."""
    try:
        return value.expand(shape).reshape(-1)
    except RuntimeError:
        raise InvalidInputError(
            f"{name} has shape {tuple(value.shape)}, which does not broadcast against a batch of"
            f" shape {tuple(shape)}."
        ) from None


def _moved(start: Tensor, state: Tensor, time: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class _Problem:
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


def _fixed(
    problem: _Problem, solver: FixedStep, record: list[tuple[Tensor, Tensor]] | None
) -> Solution:
    """Equal steps for all activations, without a data-dependent branch."""
    a, until, sign = problem.state, problem.until, problem.sign
    dt = (problem.duration / solver.n_steps)[:, None]
    h, slope = problem.evaluate(a)
    taken = torch.zeros_like(problem.duration)
    if until is None:
        for k in range(solver.n_steps):
            if record is not None:
                record.append((taken, a))
            a = _step(problem, solver, a, dt, slope)
            taken = taken + dt[:, 0].abs()
            if k + 1 < solver.n_steps:
                slope = problem.evaluate(a)[1]
        if record is not None:
            record.append((taken, a))
        return Solution(a, taken)
    # ``a``, ``slope`` and ``h`` stay at the start of the step in which the value is reached.
    moving = ~until.holds(h, sign)
    at_start = ~moving
    bracket = torch.zeros_like(moving)
    passed = []
    for _ in range(solver.n_steps):
        if record is not None:
            record.append((taken, a))
        trial = _step(problem, solver, a, dt, slope)
        trial_h, trial_slope = problem.evaluate(trial)
        crossed = moving & until.holds(trial_h, sign)
        bracket = bracket | crossed
        moving = moving & ~crossed
        passed.append(bracket)
        a = torch.where(moving[:, None], trial, a)
        h = torch.where(moving, trial_h, h)
        slope = torch.where(moving[:, None], trial_slope, slope)
        taken = torch.where(moving, taken + dt[:, 0].abs(), taken)
    located, share = _locate(problem, solver, a, dt, slope, h)
    a = torch.where(bracket[:, None], located, a)
    taken = torch.where(bracket, taken + share * dt[:, 0].abs(), taken)
    if record is not None:
        # From its crossing on, an activation rests where it was located.
        record[1:] = [
            (torch.where(there, taken, time), torch.where(there[:, None], a, state))
            for there, (time, state) in zip(passed, record[1:], strict=False)
        ]
        record.append((taken, a))
    return Solution(a, taken, reached=bracket | at_start)


def _locate(
    problem: _Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The state where the value is reached within one step from ``a``, and the share of the step.

    Regula falsi with the Illinois modification (Dowell and Jarratt, BIT 1971) on the size of the
    step; the result is the end of the bracket at which the value is reached.
    """
    until = problem.until
    assert until is not None
    sign = problem.sign

    def excess(share: Tensor) -> tuple[Tensor, Tensor]:
        state = _step(problem, solver, a, share[:, None] * dt, slope)
        return state, until.excess(problem.evaluate(state)[0], sign)

    low, high = torch.zeros_like(h), torch.ones_like(h)
    at_low = until.excess(h, sign)
    best, at_high = excess(high)
    weight_low, weight_high = at_low, at_high
    was_past = torch.zeros_like(h)  # 1 and -1 for the end that moved last, 0 for none
    for _ in range(_LOCATE_ITERATIONS):
        gap = weight_high - weight_low
        share = torch.where(
            gap > 0, (low * weight_high - high * weight_low) / gap, (low + high) / 2
        )
        share = torch.minimum(torch.maximum(share, low), high)
        state, value = excess(share)
        past = value >= 0
        best = torch.where(past[:, None], state, best)
        # The end that stays a second time counts half, so that it moves soon.
        kept_low = torch.where(was_past > 0, weight_low / 2, weight_low)
        kept_high = torch.where(was_past < 0, weight_high / 2, weight_high)
        weight_low = torch.where(past, kept_low, value)
        weight_high = torch.where(past, value, kept_high)
        was_past = torch.where(past, 1.0, -1.0)
        low, high = torch.where(past, low, share), torch.where(past, share, high)
    return best, high


def _step(problem: _Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
    if isinstance(solver, Certified):
        solver = solver.solver
    if isinstance(solver, EmbeddedPair):
        return solver.step_with_error(problem.field, a, dt, slope)[0]
    assert isinstance(solver, FixedStep)
    state = solver.step(problem.field, a, dt, slope)
    if solver.spherical:
        # To the norm at the start, so that rounding does not add up over many steps.
        state = state * (problem.norm / state.norm(dim=-1))[:, None]
    return state


def _controlled(
    problem: _Problem, solver: EmbeddedPair | Certified, record: list[tuple[Tensor, Tensor]] | None
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
            trial = _step(problem, solver, a, dt, slope)
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
                located, share = _locate(problem, solver, a, dt, slope, h)
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
