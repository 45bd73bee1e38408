"""Angular steering: angles in a plane."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import steering

from barrier_cases import contrast, queries
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, Angular


def at(angle):
    return Angular(angle=angle, max_strength=None, folds=0).fit(*contrast())


def angles(method, a):
    """Degrees in the plane, from -180 to 180."""
    x, y = (a @ method.plane_.T).unbind(-1)
    return torch.rad2deg(torch.atan2(y, x))


def apart(first, second):
    """Degrees between angles, from 0 to 180."""
    return ((first - second + 180) % 360 - 180).abs()


def test_the_plane():
    (positive, negative), method = contrast(), steering("angular")
    plane = method.plane_
    torch.testing.assert_close(plane @ plane.T, torch.eye(2, dtype=torch.float64))
    difference = positive.mean(dim=0) - negative.mean(dim=0)
    torch.testing.assert_close(plane[0], difference / difference.norm())
    assert method.separation_ == pytest.approx(float(difference.norm()))
    # No direction across the first has more variance within the classes than the second.
    residuals = torch.cat([side - side.mean(dim=0) for side in (positive, negative)])
    across = residuals - torch.outer(residuals @ plane[0], plane[0])
    most = torch.linalg.svdvals(across)[0]
    torch.testing.assert_close((residuals @ plane[1]).norm(), most)
    mean = (positive.mean(dim=0) + negative.mean(dim=0)) / 2
    assert float(mean @ plane[1]) > 0
    # From fewer examples than dimensions, by the other form of the eigenproblem.
    few = Angular(folds=0).fit(positive[:4], negative[:5])
    torch.testing.assert_close(few.plane_ @ few.plane_.T, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0, -100.0, 180.0, 270.0, 730.0])
def test_the_whole_way_ends_at_the_angle(angle):
    method, a = at(angle), queries(30)
    steered = method.steer(a)
    assert float(apart(angles(method, steered), angle).max()) < 1e-6
    # Once there, there is nothing left to do.
    torch.testing.assert_close(method.steer(steered), steered, rtol=1e-9, atol=1e-9)
    # The opposite is the whole way round the other side.
    away = method.steer(a, interpolation=-1.0)
    assert float(apart(angles(method, away), angle + 180).max()) < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.floats(-400, 400), st.floats(-2, 2), st.integers(0, 1000))
def test_a_rotation_in_the_plane(angle, share, seed):
    method, a = at(angle), queries(9, seed=seed)
    solution = method.solve(a, Amount("interpolation", share))
    change = solution.state - a
    torch.testing.assert_close(solution.state.norm(dim=1), a.norm(dim=1), rtol=1e-12, atol=0)
    # What is across the plane is untouched.
    plane = method.plane_
    assert float((change - change @ plane.T @ plane).abs().max()) < 1e-12
    before = angles(method, a)
    way = apart(angle, before)
    whole = way if share >= 0 else 180 - way
    radius = (a @ plane.T).norm(dim=1)
    torch.testing.assert_close(solution.time, torch.deg2rad(abs(share) * whole) * radius)
    turned = apart(angles(method, solution.state), before)
    torch.testing.assert_close(turned, apart(abs(share) * whole, 0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_is_kept(dtype):
    method, a = steering("angular", dtype), queries(50, dtype=dtype)
    for amount in ({"interpolation": 1.0}, {"interpolation": -0.3}, {"level": 1.0}, {"level": -1}):
        change = (method.steer(a, **amount).norm(dim=1) / a.norm(dim=1) - 1).abs()
        assert float(change.max()) < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("angle", [0.0, 60.0, 150.0, -80.0])
@pytest.mark.parametrize("level", [1.0, 0.3, 0.0, -0.3, -1.0])
def test_a_level_is_the_smallest_turn_that_reaches_it(angle, level):
    method, a = at(angle), queries(40)
    sign = math.copysign(1.0, level)
    goal = method.barrier.threshold(level)

    def excess(state):
        return sign * (method.barrier.value(state) - goal)

    solution = method.solve(a, Amount("level", level))
    there = excess(a) >= 0
    assert torch.equal(solution.state[there], a[there])
    moved = solution.reached & ~there
    assert bool((excess(solution.state)[moved].abs() < 1e-9).all())
    assert angle != 0 or bool(moved.any())
    best = torch.full((40,), -math.inf, dtype=torch.float64)
    for share in torch.linspace(0, 1, 400).tolist():
        on_the_way = method.solve(a, Amount("interpolation", sign * share))
        value = excess(on_the_way.state)
        earlier = on_the_way.time < solution.time - 1e-9
        assert bool((value < 1e-9)[moved & earlier].all())
        best = torch.maximum(best, value)
    missed = ~solution.reached
    assert bool((best[missed] < 0).all())
    assert bool((excess(solution.state)[missed] >= best[missed] - 1e-9).all())
    again = method.steer(solution.state, level=level)
    torch.testing.assert_close(again, solution.state, rtol=1e-6, atol=1e-6)


def test_activations_across_the_plane_stay():
    method = steering("angular")
    a = queries(5)
    across = a - a @ method.plane_.T @ method.plane_
    for amount in ({"interpolation": 1.0}, {"level": 1.0}):
        torch.testing.assert_close(method.steer(across, **amount), across)
    assert not bool(method.solve(across, Amount("level", 1.0)).reached.any())


def test_activations_without_a_plane():
    a, b = contrast()
    with pytest.raises(InvalidInputError, match="means of both classes are equal"):
        Angular(folds=0).fit(torch.cat([a, -a]), torch.cat([2 * a, -2 * a]))
    line = torch.linspace(0, 1, 9)[:, None] * torch.ones(12)
    with pytest.raises(InvalidInputError, match="vary only along the difference"):
        Angular(folds=0).fit(line + 1, line)
    with pytest.raises(InvalidInputError, match="vary only along the difference"):
        Angular(folds=0).fit(a[:, :1], b[:, :1])
    for angle in (math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="angle must be a number of degrees"):
            Angular(angle=angle).fit(a, b)
