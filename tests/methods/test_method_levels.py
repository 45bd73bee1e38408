"""Levels, for all methods that have them: where they end, and the other way."""

import pytest
import torch
from method_cases import METHODS, steering

from barrier_cases import contrast, queries
from odesteer.methods import Amount, Angular, Conditional, GatedDirection, Sum, TwoSided

every_method = pytest.mark.parametrize("name", list(METHODS))

# The levels of a sum are those of its methods, each with a barrier of its own.
LEVELS = [
    name
    for name, method in METHODS.items()
    if "level" in method.quantities and not isinstance(method, (Sum, TwoSided))
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [1.5, 1.0, 0.2, 0.0, -0.4, -1.0])
@pytest.mark.parametrize("name", LEVELS)
def test_a_level_is_where_the_barrier_ends(name, level, dtype):
    method, a = steering(name, dtype), queries(20, dtype=dtype)
    if isinstance(method, Angular):  # whose default cap ends most of these turns early
        method = method.with_params(max_strength=None).fit(*contrast(dtype=dtype))
    tau, h = method.barrier.threshold(level), method.barrier.value(a)
    solution = method.solve(a, Amount("level", level))
    end = method.barrier.value(solution.state)
    sign = 1 if level >= 0 else -1
    there = sign * (h - tau) >= 0
    assert torch.equal(solution.state[there], a[there])
    assert bool(solution.reached[there].all())
    moved = solution.reached & ~there
    assert bool(((end[moved] - tau).abs() <= 1e-4 * max(1, abs(tau))).all())
    capped = ~solution.reached
    assert bool((sign * (end[capped] - tau) < 0).all())
    assert bool(moved.any())


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_rows_that_go_both_ways(name):
    method, a = steering(name), queries(6)
    level = torch.tensor([1.0, -1.0, 0.0, 0.5, -0.5, 1.2], dtype=torch.float64)
    solution = method.solve(a, Amount("level", level))
    end, tau = method.barrier.value(solution.state), method.barrier.threshold(level)
    reached = solution.reached
    past = torch.where(level >= 0, end - tau, tau - end)
    assert bool((past[reached] > -1e-6).all())
    assert bool((past[~reached] < 0).all())
    # A turn in a fixed plane does not reach every level.
    assert int(reached.sum()) >= (3 if isinstance(method, Angular) else 4)


@every_method
def test_negative_amounts_steer_the_other_way(name):
    method, a = steering(name), queries()
    for quantity in ("T", "strength"):
        if quantity in method.quantities and hasattr(method, "barrier"):
            h = method.barrier.value(a)
            up = method.barrier.value(method.steer(a, **{quantity: 0.1}))
            down = method.barrier.value(method.steer(a, **{quantity: -0.1}))
            gated = isinstance(method, (Conditional, GatedDirection))
            acts = method.acts(a) if gated else h == h
            assert bool(((up > h) & (h > down))[acts].all())
            assert int(acts.sum()) >= 2
