"""CAA and Spherical against their definitions and against the flows they solve."""

import math

import pytest
import torch
from method_cases import steering

from barrier_cases import contrast, queries
from odesteer.barriers import MeanDifferenceBarrier, UnitSphere
from odesteer.errors import InvalidInputError
from odesteer.flows import Euler, Geodesic, solve
from odesteer.methods import CAA, ODESteer, Spherical
from published_runs import every_published_run


@every_published_run
def test_published_contrastive_addition(recorded):
    method = CAA().fit(recorded["pos"], recorded["neg"])
    steered = method.steer(recorded["query"], T=2.0)
    displacement = recorded["caa.T2"] - recorded["query"]
    error = (steered - recorded["caa.T2"]).norm(dim=1) / displacement.norm(dim=1)
    assert float(error.max()) < 1e-5


def test_contrastive_addition_by_definition():
    (positive, negative), a = contrast(), queries()
    method = CAA().fit(positive, negative)
    direction = positive.mean(0) - negative.mean(0)
    torch.testing.assert_close(method.direction_, direction)
    torch.testing.assert_close(method.steer(a), a + direction)
    torch.testing.assert_close(method.steer(a, T=2.0), a + 2 * direction)
    torch.testing.assert_close(CAA(T=-0.5).fit(positive, negative).steer(a), a - direction / 2)
    # Strength is the length of the displacement in mean norms.
    moved = method.steer(a, strength=0.25) - a
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((7,), 0.25 * method.strength_unit, dtype=torch.float64)
    )
    solution = method.solve(a)
    torch.testing.assert_close(solution.time, direction.norm().expand(7))
    # It is one Euler step, or any number of them, along its field.
    for n_steps in (1, 9):
        torch.testing.assert_close(
            solve(method.field, a, 2.0, Euler(n_steps)).state, a + 2 * direction
        )


def test_a_level_of_contrastive_addition_clamps_the_projection():
    method, a = steering("caa"), queries(30)
    direction = method.direction_
    before = a @ direction
    for level in (1.0, 0.0, -0.5):
        steered = method.steer(a, level=level)
        middle = torch.cat([x.mean(0)[None] for x in contrast()]).mean(0) @ direction
        goal = middle + method.barrier.threshold(level)
        after = steered @ direction
        clamped = before.clamp_min(goal) if level >= 0 else before.clamp_max(goal)
        torch.testing.assert_close(after, clamped)
        # Nothing happens across the direction.
        across = (steered - a) - ((steered - a) @ direction / direction.square().sum())[
            :, None
        ] * direction
        assert float(across.abs().max()) < 1e-12
        assert bool(method.solve(a).reached is None)


def test_a_level_of_contrastive_addition_is_the_flow_to_it():
    method, a = steering("caa"), queries()
    flow = ODESteer(MeanDifferenceBarrier(), Euler(3), max_strength=9.0).fit(*contrast())
    for level in (1.3, -0.7):
        torch.testing.assert_close(
            method.steer(a, level=level), flow.steer(a, level=level), rtol=1e-6, atol=1e-6
        )


def test_contrastive_addition_needs_a_direction():
    a = contrast()[0]
    with pytest.raises(InvalidInputError, match="means of both classes are equal"):
        CAA(folds=0).fit(torch.cat([a, -a]), torch.cat([2 * a, -2 * a]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amount", [{"T": 1.0}, {"T": -2.0}, {"strength": 0.4}, {"level": 1.0}])
def test_spherical_steering_is_the_exact_flow(amount, dtype):
    """Of the mean difference of directions; the geodesic scheme follows the same great circle."""
    data, a = contrast(dtype=dtype), queries(dtype=dtype)
    closed = Spherical(max_strength=5.0).fit(*data)
    barrier = MeanDifferenceBarrier(UnitSphere())
    flow = ODESteer(barrier, Geodesic(7), max_strength=5.0).fit(*data)
    tolerance = (
        {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    )
    ours, theirs = closed.solve(a, _amount(amount)), flow.solve(a, _amount(amount))
    torch.testing.assert_close(ours.state, theirs.state, **tolerance)
    torch.testing.assert_close(ours.time, theirs.time, **tolerance)
    if "level" in amount:
        assert torch.equal(ours.reached, theirs.reached)


def _amount(given):
    from odesteer.methods import Amount

    return Amount.of(**given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spherical_steering_keeps_the_norm(dtype):
    method, a = steering("spherical", dtype), queries(20, dtype=dtype)
    for amount in ({"T": 1.0}, {"T": -30.0}, {"strength": 0.3}, {"level": 2.0}, {"level": -1.0}):
        steered = method.steer(a, **amount)
        change = (steered.norm(dim=1) / a.norm(dim=1) - 1).abs()
        assert float(change.max()) < (1e-6 if dtype == torch.float32 else 1e-14)


def test_spherical_steering_ends_at_the_poles():
    """The direction itself is the maximum of h, and its opposite the minimum: no further."""
    method, a = steering("spherical"), queries()
    norm = a.norm(dim=1, keepdim=True)
    for sign in (1, -1):
        end = method.steer(a, T=sign * 1e4)
        torch.testing.assert_close(end, sign * norm * method.direction_)
    pole = 3 * method.direction_
    for T in (1.0, -1.0):  # there is no way down that is better than others
        for exact in (pole, -pole):
            assert torch.equal(method.steer(exact, T=T), exact)


def test_levels_beyond_the_pole_cannot_be_reached():
    method, a = steering("spherical"), queries()
    highest = method.barrier.value(method.direction_)
    level = 1.1 * float(highest) / method.barrier.upper_
    solution = Spherical(max_strength=9.0).fit(*contrast()).solve(a, _amount({"level": level}))
    assert not bool(solution.reached.any())
    torch.testing.assert_close(
        solution.state, a.norm(dim=1, keepdim=True) * method.direction_, rtol=1e-6, atol=1e-6
    )


def test_the_cap_of_spherical_steering():
    method = Spherical(max_strength=0.01).fit(*contrast())
    solution = method.solve(queries(20), _amount({"level": 1.5}))
    assert not bool(solution.reached.all())
    capped = solution.time[~solution.reached]
    torch.testing.assert_close(capped, torch.full_like(capped, 0.01 * method.strength_unit))


def test_spherical_steering_needs_a_direction():
    a = contrast()[0]
    with pytest.raises(InvalidInputError, match="equal"):
        Spherical(folds=0).fit(torch.cat([a, -a]), torch.cat([2 * a, -2 * a]))


def test_angles_near_the_poles_in_float32():
    """A token almost along the direction: the small angle is not lost to cancellation."""
    method = steering("spherical", torch.float32)
    w = method.direction_.double()
    across = torch.randn(12, dtype=torch.float64)
    across = across - (across @ w) * w
    across = across / across.norm()
    for angle in (1e-3, 1e-2, math.pi - 1e-3):
        a = 5 * (math.cos(angle) * w + math.sin(angle) * across)
        ours = method.steer(a.float(), T=-0.5).double()
        expected = 5 * (math.cos(angle + 0.1) * w + math.sin(angle + 0.1) * across)
        if angle > 3:
            expected = -5 * w  # the pole is nearer than that
        assert float((ours - expected).norm()) < 1e-2 * 0.5
