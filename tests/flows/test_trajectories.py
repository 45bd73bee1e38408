"""Trajectories: recorded states, times, values and speeds."""

import pytest
import torch

from barrier_cases import WIDTH, fitted, queries
from flow_cases import FIXED_STEP, SOLVERS, AffineField
from odesteer.flows import (
    BogackiShampine,
    Certified,
    Euler,
    GradientField,
    MatrixMetric,
    ReachValue,
    solve,
    trajectory,
)

every_solver = pytest.mark.parametrize("solver", list(SOLVERS))
BARRIERS = ["polynomial-2", "polynomial-3"]


@pytest.mark.parametrize("barrier", BARRIERS)
@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
@every_solver
def test_it_runs_from_the_start_to_the_solution(solver, shape, stops, barrier):
    h = fitted(barrier)
    a = queries(6).reshape(2, 3, WIDTH) if len(shape) == 2 else queries(6)
    a = a[0] if shape == () else a
    until = ReachValue(h.value(a) + 0.05) if stops else None
    arguments = (GradientField(h), a, 1.5, SOLVERS[solver])
    path, solution = trajectory(*arguments, until=until), solve(*arguments, until=until)
    n = len(path.times)
    assert path.times.shape == path.values.shape == path.speeds.shape == (n, *shape)
    assert path.states.shape == (n, *shape, WIDTH)
    assert torch.equal(path.states[0], a)
    assert torch.equal(path.times[0], torch.zeros(shape, dtype=torch.float64))
    assert torch.equal(path.states[-1], path.solution.state)
    assert torch.equal(path.times[-1], path.solution.time)
    # Without recording Euler flows may take the compiled form, which agrees to rounding.
    torch.testing.assert_close(path.solution.state, solution.state, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(path.solution.time, solution.time, rtol=1e-6, atol=1e-6)
    assert bool((path.times.diff(dim=0) >= 0).all())
    torch.testing.assert_close(path.values, h.value(path.states))
    if solver in FIXED_STEP and not stops:
        assert n == SOLVERS[solver].n_steps + 1


@pytest.mark.parametrize("metric", [None, MatrixMetric(torch.diag(torch.linspace(0.1, 3, WIDTH)))])
def test_speeds_are_the_rate_of_the_barrier(metric):
    h, a = fitted("polynomial-3"), queries()
    field = GradientField(h) if metric is None else GradientField(h, metric)
    path = trajectory(field, a, 0.1, Euler(100))
    measured = path.values.diff(dim=0) / path.times.diff(dim=0)
    torch.testing.assert_close(measured, path.speeds[:-1], rtol=1e-2, atol=1e-3)
    if metric is None:
        torch.testing.assert_close(path.speeds, h.gradient(path.states).norm(dim=-1))


def test_rows_rest_where_they_stop():
    h, a = fitted("polynomial-2"), queries()
    tau = h.value(a) + torch.linspace(-0.1, 0.3, len(a), dtype=torch.float64)
    path = trajectory(GradientField(h), a, 3.0, Euler(20), until=ReachValue(tau))
    assert torch.equal(path.states[:, 0], a[:1].expand(21, -1))  # there at the start
    for row in range(len(a)):
        stopped = path.times[:, row] == path.times[-1, row]
        assert torch.equal(stopped, stopped.cummax(0).values)
        assert bool((path.states[stopped, row] == path.states[-1, row]).all())
        assert bool((path.values[~stopped, row] < tau[row]).all())


def test_rows_with_their_own_durations():
    h, a = fitted("polynomial-2"), queries(4)
    T = torch.tensor([0.0, 0.5, -1.0, 2.0], dtype=torch.float64)
    for solver in (Euler(5), BogackiShampine(), Certified(Euler(5))):
        path = trajectory(GradientField(h), a, T, solver)
        torch.testing.assert_close(path.times[-1], T.abs())
        assert torch.equal(path.states[:, 0], a[:1].expand(len(path.states), -1))
        rising = path.values.diff(dim=0).sum(0)
        assert rising[1] > 0 > rising[2]


def test_rejected_attempts_are_not_recorded():
    h, a = fitted("polynomial-2-raw"), queries(1)
    path = trajectory(GradientField(h), a, 4.0, BogackiShampine(rtol=1e-6))
    assert bool((path.times.diff(dim=0) > 0).all())


def test_fields_without_a_barrier_have_no_values():
    field = AffineField(torch.eye(WIDTH), torch.zeros(WIDTH))
    path = trajectory(field, queries(), 0.5, Euler(4))
    assert path.values is None
    assert path.speeds is None
    assert path.states.shape == (5, 7, WIDTH)
