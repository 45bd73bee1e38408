"""Event location: where within a step the barrier reaches a value, with its derivative."""

from collections.abc import Callable

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

    ``slope`` is v(a) and ``h`` h(a). The fraction is found without gradients, and then made
    differentiable.
    """

    def at(fraction: Tensor) -> Tensor:
        return problem.step(solver, a, fraction[:, None] * dt, slope)

    with torch.no_grad():
        best, found = _bracketed(problem, solver, a, dt, slope, h)
    fraction = differentiable_root(lambda fraction: problem.excess(at(fraction)), found)
    return (at(fraction) if fraction.requires_grad else best), fraction


def differentiable_root(function: Callable[[Tensor], Tensor], root: Tensor) -> Tensor:
    """A root `[...]` of a rising function, with its derivative by all that the function depends on.

    One step of Newton's method from ``root``: it leaves the value as it is, and has the derivative
    of the implicit function theorem. Where the function does not rise there is none.
    """
    if not torch.is_grad_enabled():
        return root
    value = function(root.detach())
    if not value.requires_grad:
        return root
    variable = root.detach().requires_grad_()
    (rate,) = torch.autograd.grad(function(variable).sum(), variable)
    rises = (rate > 0) & torch.isfinite(rate)
    inverse = torch.where(rises, 1 / torch.where(rises, rate, 1.0), 0.0)
    return root.detach() - (value - value.detach()) * inverse


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
