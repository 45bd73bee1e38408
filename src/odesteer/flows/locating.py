"""Where within a step a value of the barrier is reached."""

from typing import NamedTuple

import torch
from torch import Tensor

from odesteer.flows.problem import Problem
from odesteer.flows.solvers import Solver

# Ten give full accuracy in steps of up to about ‖a‖, the rest in steps of many times that.
ITERATIONS = 20


class Bracket(NamedTuple):
    """Shares of the step, `[n]`, between which the value is reached, and how far past it h is.

    ``weight_low`` and ``weight_high`` are how far, as the next guess counts them. ``was_past`` is
    1 and -1 for the end that moved last, 0 for none. ``best`` `[n, k]` is the state at ``high``.
    """

    low: Tensor
    high: Tensor
    weight_low: Tensor
    weight_high: Tensor
    was_past: Tensor
    best: Tensor


def locate(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The state where the value is reached within one step from ``a``, and the share of the step.

    Regula falsi with the Illinois modification (Dowell and Jarratt, BIT 1971) on the size of the
    step; the result is the end of the bracket at which the value is reached.
    """
    bracket = whole_step(problem, solver, a, dt, slope, h)
    for _ in range(ITERATIONS):
        bracket = narrowed(problem, solver, a, dt, slope, bracket)
    return bracket.best, bracket.high


def whole_step(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, h: Tensor
) -> Bracket:
    """The bracket to begin with, from h(a) `[n]`."""
    assert problem.until is not None
    zero, one = torch.zeros_like(h), torch.ones_like(h)
    best, at_high = _at(problem, solver, a, dt, slope, one)
    return Bracket(zero, one, problem.until.excess(h, problem.sign), at_high, zero, best)


def narrowed(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, bracket: Bracket
) -> Bracket:
    """One iteration."""
    low, high, weight_low, weight_high, was_past, best = bracket
    gap = weight_high - weight_low
    share = torch.where(gap > 0, (low * weight_high - high * weight_low) / gap, (low + high) / 2)
    share = torch.minimum(torch.maximum(share, low), high)
    state, value = _at(problem, solver, a, dt, slope, share)
    past = value >= 0
    # The end that stays a second time counts half, so that it moves soon.
    kept_low = torch.where(was_past > 0, weight_low / 2, weight_low)
    kept_high = torch.where(was_past < 0, weight_high / 2, weight_high)
    return Bracket(
        torch.where(past, low, share),
        torch.where(past, share, high),
        torch.where(past, kept_low, value),
        torch.where(past, value, kept_high),
        torch.where(past, 1.0, -1.0).to(value),
        torch.where(past[:, None], state, best),
    )


def _at(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The state after a share `[n]` of the step, and how far past the value h is there."""
    state = problem.stepped(solver, a, share[:, None] * dt, slope)
    return state, problem.excess(state)
