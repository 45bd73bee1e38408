"""Event location: where within a step the barrier reaches a value, with its derivative."""

import torch
from torch import Tensor

from odesteer.flows.problem import Problem
from odesteer.flows.solvers import Solver

# Ten give full accuracy in steps of up to about ‖a‖, the rest in steps of many times that.
ITERATIONS = 20


def locate(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The state `[n, k]` where the value is reached within one step from ``a``, and the fraction
    `[n]` of the step that leads there.

    ``slope`` is v(a) and ``h`` h(a). The fraction is found without gradients; one step of Newton's
    method from there, whose value is nothing and whose derivative is that of the crossing, makes
    it a function of the activation, the size of the step and the value to reach.
    """
    with torch.no_grad():
        best, fraction = _bracketed(problem, solver, a, dt, slope, h)
    if not torch.is_grad_enabled():
        return best, fraction
    excess = problem.excess(problem.step(solver, a, fraction[:, None] * dt, slope))
    if not excess.requires_grad:
        return best, fraction
    rate = _rate(problem, solver, a, dt, slope, fraction)
    # Where the value is not reached in this step the fraction is not used; keep it finite.
    crossing = (rate > 0) & torch.isfinite(rate)
    inverse = torch.where(crossing, 1 / torch.where(crossing, rate, 1.0), 0.0)
    fraction = fraction - (excess - excess.detach()) * inverse
    return problem.step(solver, a, fraction[:, None] * dt, slope), fraction


def _bracketed(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Regula falsi with the Illinois modification (Dowell and Jarratt, BIT 1971).

    The result is the end of the bracket at which the value is reached.
    """
    assert problem.until is not None

    def at(fraction: Tensor) -> tuple[Tensor, Tensor]:
        """The state after a fraction of the step, and how far past the value h is there."""
        state = problem.step(solver, a, fraction[:, None] * dt, slope)
        return state, problem.excess(state)

    low, high = torch.zeros_like(h), torch.ones_like(h)
    best, excess_high = at(high)
    excess_low = problem.until.excess(h, problem.sign)
    last_moved = low  # 1 for the upper end of the bracket, -1 for the lower one
    for _ in range(ITERATIONS):
        gap = excess_high - excess_low
        secant = (low * excess_high - high * excess_low) / gap
        fraction = torch.where(gap > 0, secant, (low + high) / 2)
        fraction = torch.minimum(torch.maximum(fraction, low), high)
        state, excess = at(fraction)
        past = excess >= 0
        # An end that stays a second time is weighted by half, so that it moves soon.
        halved_low = torch.where(last_moved > 0, excess_low / 2, excess_low)
        halved_high = torch.where(last_moved < 0, excess_high / 2, excess_high)
        excess_low = torch.where(past, halved_low, excess)
        excess_high = torch.where(past, excess, halved_high)
        low, high = torch.where(past, low, fraction), torch.where(past, fraction, high)
        last_moved = torch.where(past, 1.0, -1.0).to(excess)
        best = torch.where(past[:, None], state, best)
    return best, high


def _rate(
    problem: Problem, solver: Solver, a: Tensor, dt: Tensor, slope: Tensor, fraction: Tensor
) -> Tensor:
    """The derivative of how far past the value h is by the fraction of the step, `[n]`."""
    with torch.enable_grad():
        size = fraction.detach().requires_grad_()
        state = problem.step(solver, a.detach(), size[:, None] * dt.detach(), slope.detach())
        (rate,) = torch.autograd.grad(problem.excess(state).sum(), size)
    return rate
