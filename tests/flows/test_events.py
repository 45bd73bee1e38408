"""Stopping where the barrier reaches a value: located, not overshot, and never before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import BARRIERS, fitted, queries
from flow_cases import SOLVERS, StepwiseEuler
from odesteer.barriers.composed import FixedBarrier
from odesteer.flows import BogackiShampine, Euler, Geodesic, GradientField, ReachValue, solve

every_barrier = pytest.mark.parametrize("barrier", list(BARRIERS))
every_solver = pytest.mark.parametrize("solver", list(SOLVERS))


def reachable_values(barrier, a, T, solver, share=0.6):
    """A value for each row that its flow passes on the way."""
    end = solve(GradientField(barrier), a, T, solver).state
    return torch.lerp(barrier.value(a), barrier.value(end), share)


def tolerance(tau, dtype):
    return (1e-4 if dtype == torch.float32 else 1e-7) * tau.abs().clamp_min(1)


@pytest.mark.parametrize("T", [1.5, -1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ["euler", "euler-stepwise"])
@every_barrier
def test_euler_ends_at_the_value(barrier, solver, dtype, T):
    h, a = fitted(barrier, dtype), queries(dtype=dtype)
    tau = reachable_values(h, a, T, SOLVERS[solver])
    solution = solve(GradientField(h), a, T, SOLVERS[solver], until=ReachValue(tau))
    assert bool(solution.reached.all())
    assert bool(((h.value(solution.state) - tau).abs() <= tolerance(tau, dtype)).all())
    assert bool((solution.time < abs(T)).all())
    assert bool((solution.time > 0).all())


@pytest.mark.parametrize("T", [1.5, -1.5])
@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-2-centred", "sketch-3"])
@every_solver
def test_every_solver_ends_at_the_value(solver, barrier, T):
    h, a = fitted(barrier, torch.float32), queries(dtype=torch.float32)
    tau = reachable_values(h, a, T, SOLVERS[solver])
    solution = solve(GradientField(h), a, T, SOLVERS[solver], until=ReachValue(tau))
    assert bool(solution.reached.all())
    assert bool(((h.value(solution.state) - tau).abs() <= tolerance(tau, torch.float32)).all())


@every_solver
def test_never_before(solver):
    """A little less time along the same flow ends below the value."""
    h, a = fitted("polynomial-3"), queries()
    tau = reachable_values(h, a, 2.0, SOLVERS[solver])
    solution = solve(GradientField(h), a, 2.0, SOLVERS[solver], until=ReachValue(tau))
    # Polynomials of degree 3 are not restricted, so that h is the solver's own to the bit.
    assert bool((h.value(solution.state) >= tau).all())
    step = solution.time * (1 - 1e-6)
    before = solve(GradientField(h), a, step, SOLVERS[solver]).state
    if solver.startswith("euler"):
        return  # a shorter flow of a coarse solver takes another path
    assert bool((h.value(before) < tau + 0.1 * (tau - h.value(a)).abs()).all())


@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-2-centred", "neural"])
@every_solver
def test_activations_that_are_there_do_not_move(solver, barrier):
    h, a = fitted(barrier, torch.float32), queries(9, dtype=torch.float32)
    a[0, 0] = -0.0
    value = h.value(a)
    tau = float(value.median())
    for sign in (1.0, -1.0):
        solution = solve(GradientField(h), a, 2 * sign, SOLVERS[solver], until=ReachValue(tau))
        there = sign * (value - tau) > 1e-5
        assert there.sum() == 4
        assert torch.equal(solution.state[there], a[there])
        assert torch.equal(torch.signbit(solution.state[there]), torch.signbit(a[there]))
        assert bool((solution.time[there] == 0).all())
        assert bool(solution.reached[there].all())
        moved = sign * (value - tau) < -1e-5
        assert bool((solution.state[moved] != a[moved]).any(dim=1).all())


@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-2-centred", "neural"])
@every_solver
def test_the_cap(solver, barrier):
    """Too little time to get there: the flow of a fixed time, and not reached."""
    h, a = fitted(barrier), queries()
    field = GradientField(h)
    tau = reachable_values(h, a, 2.0, SOLVERS[solver], share=1.0) + 10
    capped = solve(field, a, 0.4, SOLVERS[solver], until=ReachValue(tau))
    free = solve(field, a, 0.4, SOLVERS[solver])
    assert not bool(capped.reached.any())
    torch.testing.assert_close(capped.state, free.state)
    torch.testing.assert_close(capped.time, free.time)
    assert free.reached is None


@every_solver
def test_rows_have_their_own_values_and_caps(solver):
    """One row each: there at the start, reached, capped, and steered down."""
    h, a = fitted("polynomial-2"), queries(4)
    value = h.value(a)
    T = torch.tensor([1.0, 1.0, 1e-3, -1.0], dtype=torch.float64)
    tau = value + torch.tensor([-0.5, 0.05, 5.0, -0.05], dtype=torch.float64)
    solution = solve(GradientField(h), a, T, SOLVERS[solver], until=ReachValue(tau))
    assert solution.reached.tolist() == [True, True, False, True]
    end = h.value(solution.state)
    assert end[0] == value[0]
    torch.testing.assert_close(end[[1, 3]], tau[[1, 3]], rtol=0, atol=1e-7)
    assert float(solution.time[2]) == pytest.approx(1e-3)
    for i in range(4):
        until = ReachValue(float(tau[i]))
        alone = solve(GradientField(h), a[i], float(T[i]), SOLVERS[solver], until=until)
        torch.testing.assert_close(alone.state, solution.state[i], rtol=1e-7, atol=1e-7)
        assert bool(alone.reached) == bool(solution.reached[i])
    grid = ReachValue(tau.reshape(2, 2))
    square = solve(
        GradientField(h), a.reshape(2, 2, -1), T.reshape(2, 2), SOLVERS[solver], until=grid
    )
    torch.testing.assert_close(square.state, solution.state.reshape(2, 2, -1))
    assert square.reached.shape == (2, 2)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(1e-4, 0.999),
    solver=st.one_of(*(st.builds(cls, st.integers(1, 20)) for cls in (Euler, StepwiseEuler))),
    T=st.floats(0.05, 4.0),
)
def test_values_anywhere_along_the_flow(seed, share, solver, T):
    h = fitted("polynomial-2-centred", torch.float32)
    a = queries(3, seed=seed, dtype=torch.float32)
    end = solve(GradientField(h), a, T, solver).state
    tau = torch.lerp(h.value(a), h.value(end), share)
    up = tau > h.value(a)  # coarse steps may end lower than they started
    solution = solve(GradientField(h), a, T, solver, until=ReachValue(tau))
    gap = (h.value(solution.state) - tau).abs()
    assert bool((gap[up] <= tolerance(tau, torch.float32)[up]).all())
    assert bool(solution.reached[up].all())


def test_a_single_long_step_is_cut_at_the_crossing():
    """One Euler step that would pass the value far: it stops on the straight line there."""
    h, a = fitted("polynomial-2"), queries()
    field = GradientField(h)
    tau = h.value(a) + 0.02
    solution = solve(field, a, 5.0, Euler(1), until=ReachValue(tau))
    torch.testing.assert_close(h.value(solution.state), tau, rtol=0, atol=1e-9)
    along = solution.state - a
    torch.testing.assert_close(along, solution.time[:, None] * field(a))
    assert bool((solution.time < 1).all())


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("solver", [Euler(1), StepwiseEuler(1)], ids=repr)
@pytest.mark.parametrize("barrier", ["linear-sphere", "polynomial-2", "polynomial-4-centred"])
def test_steps_in_which_the_barrier_bends(barrier, solver, share):
    """Eight times as long as the activation: h levels off within the step, or shoots up."""
    h, a = fitted(barrier), queries(20)
    end = solve(GradientField(h), a, 30.0, solver).state
    tau = torch.lerp(h.value(a), h.value(end), share)
    solution = solve(GradientField(h), a, 30.0, solver, until=ReachValue(tau))
    up = h.value(end) > h.value(a)
    gap = (h.value(solution.state) - tau).abs()[up]
    assert int(up.sum()) > 5
    assert bool((gap <= 1e-7 * tau.abs().clamp_min(1)[up]).all())


def test_a_value_above_the_maximum_ends_at_the_maximum():
    """A concave barrier: what cannot be reached is reported, by every kind of solver."""
    barrier = concave_barrier()
    a = 2 * queries(5, width=6)
    top = barrier.value(torch.zeros(6, dtype=torch.float64))
    for solver in SOLVERS.values():
        if isinstance(getattr(solver, "solver", solver), Geodesic):
            continue  # stays on its sphere
        solution = solve(GradientField(barrier), a, 8.0, solver, until=ReachValue(float(top) + 1))
        assert not bool(solution.reached.any())
        # Within about a step of the maximum, where the unit field turns round at every step.
        gap = top - barrier.value(solution.state)
        assert float(gap.max()) < 5 < float((top - barrier.value(a)).min()), solver
        assert bool(torch.isfinite(solution.state).all())


def concave_barrier():
    from odesteer.barriers import Raw
    from odesteer.barriers.quadratic import QuadraticFunction

    curvature = -torch.linspace(0.5, 3, 6, dtype=torch.float64)
    zero = torch.zeros(6, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)
    return FixedBarrier.of(Raw(), QuadraticFunction.of(eye, curvature, zero, 2.0))


def test_step_control_stops_at_a_maximum_instead_of_giving_up():
    """The unit field turns round there, so no step, however short, continues the flow."""
    barrier, a = concave_barrier(), queries(5, width=6)
    for until in (None, ReachValue(100.0)):
        solution = solve(GradientField(barrier), a, 20.0, BogackiShampine(), until=until)
        assert float(solution.state.norm(dim=1).max()) < 0.02
        assert bool((solution.time < 20).all())
        assert bool((barrier.value(solution.state) > barrier.value(a)).all())


def test_giving_up_before_a_value_is_a_cap():
    h, a = fitted("polynomial-3"), queries()
    until = ReachValue(100.0)
    solution = solve(GradientField(h), a, 2.0, BogackiShampine(rtol=1e-9, max_steps=3), until=until)
    assert not bool(solution.reached.any())
    assert bool((solution.time < 2).all())
