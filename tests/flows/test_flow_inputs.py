"""Inputs of a flow: activations, shapes, types and durations."""

import pytest
import torch

from barrier_cases import WIDTH, contrast, fitted, queries
from flow_cases import SOLVERS, AffineField
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.flows import (
    BogackiShampine,
    Certified,
    ConstantField,
    Euler,
    GradientField,
    ReachValue,
    solve,
)

every_solver = pytest.mark.parametrize("name", list(SOLVERS))
some_barriers = pytest.mark.parametrize(
    "barrier", ["linear-raw", "polynomial-2", "polynomial-2-centred", "sketch-3", "neural"]
)


@some_barriers
@every_solver
def test_batches_are_row_by_row(name, barrier):
    """With a time for each row, of either sign, and none."""
    field, solver = GradientField(fitted(barrier)), SOLVERS[name]
    a = queries(6)
    T = torch.tensor([-2.0, -0.3, 0.0, 0.7, 1.5, 2.0], dtype=torch.float64)
    together = solve(field, a, T, solver)
    assert together.time.shape == (6,)
    for i in range(6):
        alone = solve(field, a[i], float(T[i]), solver)
        assert alone.state.shape == (WIDTH,)
        assert alone.time.shape == ()
        torch.testing.assert_close(alone.state, together.state[i], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(alone.time, together.time[i])
    cube = solve(field, a.reshape(2, 3, WIDTH), T.reshape(2, 3), solver)
    torch.testing.assert_close(cube.state, together.state.reshape(2, 3, WIDTH))
    spread = solve(field, a.reshape(2, 3, WIDTH), T[:3], solver)
    torch.testing.assert_close(spread.state[0], together.state[:3])
    assert torch.equal(together.state[2], a[2])
    assert float(together.time[2]) == 0


@some_barriers
@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_time_is_no_change(name, barrier, dtype):
    a = queries(dtype=dtype)
    a[0, 0] = -0.0
    solution = solve(GradientField(fitted(barrier)), a, 0.0, SOLVERS[name])
    assert torch.equal(solution.state, a)
    assert bool(torch.signbit(solution.state[0, 0]))
    assert solution.time.tolist() == [0.0] * len(a)


@every_solver
def test_empty_batches(name):
    field, a = GradientField(fitted("polynomial-2")), queries()[:0]
    for until in (None, ReachValue(0.5)):
        solution = solve(field, a, 1.0, SOLVERS[name], until=until)
        assert solution.state.shape == (0, WIDTH)
        assert solution.time.shape == (0,)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_is_kept_and_the_start_not_modified(name, dtype):
    a = queries(dtype=dtype)
    before = a.clone()
    solution = solve(GradientField(fitted("polynomial-2")), a, 1.0, SOLVERS[name])
    assert solution.state.dtype == dtype
    assert solution.time.dtype == dtype
    assert torch.equal(a, before)
    assert solution.state.data_ptr() != a.data_ptr()


@every_solver
def test_a_negative_time_follows_the_field_backwards(name):
    barrier, a = fitted("polynomial-2"), queries()
    up, down = (solve(GradientField(barrier), a, T, SOLVERS[name]).state for T in (0.5, -0.5))
    assert bool((barrier.value(up) > barrier.value(a)).all())
    assert bool((barrier.value(down) < barrier.value(a)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_only_single_and_double_precision_flow(dtype):
    with pytest.raises(InvalidInputError, match="float32 or float64"):
        solve(GradientField(fitted("linear-raw")), queries().to(dtype), 1.0, Euler())


def test_times_that_do_not_broadcast():
    with pytest.raises(InvalidInputError, match=r"T has shape \(3,\)"):
        solve(GradientField(fitted("linear-raw")), queries(7), torch.ones(3), Euler())
    until = ReachValue(torch.ones(2, 7))
    with pytest.raises(InvalidInputError, match="the value to reach has shape"):
        solve(GradientField(fitted("linear-raw")), queries(7), 1.0, Euler(), until=until)


def test_values_and_certificates_need_a_barrier():
    field = ConstantField(torch.ones(WIDTH))
    with pytest.raises(InvalidInputError, match="stopping at a value needs the gradient field"):
        solve(field, queries(), 1.0, Euler(), until=ReachValue(0.0))
    with pytest.raises(InvalidInputError, match="a certificate needs the gradient field"):
        solve(field, queries(), 1.0, Certified())


def test_step_control_gives_up_with_a_remedy():
    field = AffineField(100 * torch.eye(WIDTH), torch.zeros(WIDTH))
    with pytest.raises(ConvergenceError, match=r"3 attempts.*for 7 of 7.*raise max_steps"):
        solve(field, queries(), 1.0, BogackiShampine(rtol=1e-8, max_steps=3))


def test_attempts_that_just_suffice():
    field, a = GradientField(fitted("polynomial-2")), queries()
    exact = solve(field, a, 1.0, Certified(Euler(10)))
    assert not exact.rejected.any()
    same = solve(field, a, 1.0, Certified(Euler(10), max_steps=10))
    torch.testing.assert_close(same.state, exact.state)
    with pytest.raises(ConvergenceError):
        solve(field, a, 1.0, Certified(Euler(10), max_steps=9))


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e25])
def test_the_speed_is_one_whatever_the_scale_of_the_barrier(size):
    """Only gradients whose squares leave float32 give less, and none gives more."""
    barrier = fitted("linear-raw").to(dtype=torch.float32)
    function = barrier.function_
    scaled = barrier.to()
    scaled.function_ = function.to()
    scaled.function_.slope_ = function.slope_ * size
    speed = GradientField(scaled)(queries(dtype=torch.float32)).norm(dim=1)
    assert float(speed.max()) < 1.0001
    if 1e-15 < size < 1e15:
        torch.testing.assert_close(speed, torch.ones(7), rtol=1e-5, atol=0)


def test_flows_can_be_differentiated():
    """Through the solver, with respect to the start."""
    field = GradientField(fitted("polynomial-3"))
    a = queries(1)[0].requires_grad_()
    out = solve(field, a, 0.5, Euler(4)).state
    (gradient,) = torch.autograd.grad(out.sum(), a)
    direction = contrast()[0][0]
    ahead, behind = (
        float(solve(field, a.detach() + s * direction, 0.5, Euler(4)).state.sum())
        for s in (1e-6, -1e-6)
    )
    assert float(gradient @ direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-5)
