"""Equal steps for all activations, without a data-dependent branch."""

from typing import NamedTuple

import torch
from torch import Tensor

from odesteer.flows.locating import locate
from odesteer.flows.problem import Problem
from odesteer.flows.solution import Solution
from odesteer.flows.solvers import FixedStep

Record = list[tuple[Tensor, Tensor]]


class Walk(NamedTuple):
    """How far a flow to a value has come.

    ``a`` `[n, k]`, h(a) and v(a) stay at the start of the step in which the value is reached.
    ``taken`` `[n]`: time; ``moving`` and ``crossed`` `[n]` bool: whether the value is not reached
    yet, and whether it was on the way (not from the start).
    """

    a: Tensor
    h: Tensor
    slope: Tensor
    taken: Tensor
    moving: Tensor
    crossed: Tensor


def solve_fixed(problem: Problem, solver: FixedStep, record: Record | None) -> Solution:
    """All steps; ``record`` takes the time and state before each, and those at the end."""
    dt = step_size(problem, solver)
    if problem.until is None:
        a, taken = problem.state, torch.zeros_like(problem.duration)
        for _ in range(solver.n_steps):
            if record is not None:
                record.append((taken, a))
            a, taken = advanced(problem, solver, dt, a, taken)
        if record is not None:
            record.append((taken, a))
        return Solution(a, taken)
    walk, passed = at_start(problem), []
    for _ in range(solver.n_steps):
        if record is not None:
            record.append((walk.taken, walk.a))
        walk = advanced_until(problem, solver, dt, walk)
        passed.append(walk.crossed)
    located = locate(problem, solver, walk.a, dt, walk.slope, walk.h)
    solution = arrived(walk, dt, *located)
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


def step_size(problem: Problem, solver: FixedStep) -> Tensor:
    """Signed, `[n, 1]`."""
    return (problem.duration / solver.n_steps)[:, None]


def advanced(
    problem: Problem, solver: FixedStep, dt: Tensor, a: Tensor, taken: Tensor
) -> tuple[Tensor, Tensor]:
    """State and time after one more step."""
    return problem.stepped(solver, a, dt, problem.evaluate(a)[1]), taken + dt[:, 0].abs()


def at_start(problem: Problem) -> Walk:
    """Before the first step to a value."""
    assert problem.until is not None
    h, slope = problem.evaluate(problem.state)
    moving = ~problem.until.holds(h, problem.sign)
    taken = torch.zeros_like(problem.duration)
    return Walk(problem.state, h, slope, taken, moving, torch.zeros_like(moving))


def advanced_until(problem: Problem, solver: FixedStep, dt: Tensor, walk: Walk) -> Walk:
    """After one more step to a value."""
    assert problem.until is not None
    trial = problem.stepped(solver, walk.a, dt, walk.slope)
    h, slope = problem.evaluate(trial)
    crossed = walk.moving & problem.until.holds(h, problem.sign)
    moving = walk.moving & ~crossed
    return Walk(
        torch.where(moving[:, None], trial, walk.a),
        torch.where(moving, h, walk.h),
        torch.where(moving[:, None], slope, walk.slope),
        torch.where(moving, walk.taken + dt[:, 0].abs(), walk.taken),
        moving,
        walk.crossed | crossed,
    )


def arrived(walk: Walk, dt: Tensor, located: Tensor, share: Tensor) -> Solution:
    """The end, where the value is reached at ``located`` after a ``share`` of the last step."""
    return Solution(
        torch.where(walk.crossed[:, None], located, walk.a),
        torch.where(walk.crossed, walk.taken + share * dt[:, 0].abs(), walk.taken),
        reached=~walk.moving,
    )
