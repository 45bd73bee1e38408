"""Certified steps never lower the barrier."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import BARRIERS, fitted, queries
from flow_cases import quadratic_barrier
from odesteer.barriers import Centred, Raw, UnitSphere
from odesteer.flows import (
    RK4,
    Certified,
    Euler,
    Geodesic,
    GradientField,
    MatrixMetric,
    ReachValue,
    solve,
    trajectory,
)

INNER = {"euler": Euler(8), "coarse": Euler(2), "rk4": RK4(3), "geodesic": Geodesic(8)}
every_inner = pytest.mark.parametrize("inner", list(INNER))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("T", [3.0, -3.0, 1e-6])
@every_inner
@pytest.mark.parametrize("barrier", list(BARRIERS))
def test_the_barrier_never_falls(barrier, inner, T, dtype):
    """Not by one unit in the last place, from the start to the end."""
    h, a = fitted(barrier, dtype), queries(dtype=dtype)
    solution = solve(GradientField(h), a, T, Certified(INNER[inner]))
    rise = h.value(solution.state) - h.value(a)
    assert bool((rise >= 0).all() if T > 0 else (rise <= 0).all())
    if abs(T) > 1:
        assert float(rise.abs().min()) > 0


@every_inner
@pytest.mark.parametrize("barrier", ["polynomial-3", "polynomial-4-centred", "sketch-3", "neural"])
def test_the_barrier_never_falls_along_the_way(barrier, inner):
    """Exactly, at every recorded state; these barriers are followed in all coordinates."""
    h, a = fitted(barrier, torch.float32), queries(dtype=torch.float32)
    path = trajectory(GradientField(h), a, 6.0, Certified(INNER[inner]))
    values = torch.stack([h.value(state) for state in path.states])
    assert bool((values.diff(dim=0) >= 0).all())
    assert len(values) > 2


@every_inner
@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-2-centred", "linear-sphere"])
def test_in_eigen_coordinates_it_falls_by_rounding_at_most(barrier, inner):
    h, a = fitted(barrier, torch.float32), queries(dtype=torch.float32)
    path = trajectory(GradientField(h), a, 6.0, Certified(INNER[inner]))
    rounding = 8 * torch.finfo(torch.float32).eps * (1 + path.values.abs().max())
    assert bool((path.values.diff(dim=0) >= -rounding).all())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    rank=st.integers(1, 9),
    inputs=st.sampled_from([Raw(), UnitSphere()]),
    n_steps=st.integers(1, 6),
    T=st.floats(0.1, 30),
)
def test_forward_invariance_on_random_quadratics(seed, rank, inputs, n_steps, T):
    """Indefinite forms and steps far too long for them: {h ≥ c} is not left for any c."""
    h = quadratic_barrier(inputs, 9, rank, seed)
    a = queries(6, width=9, seed=seed)
    path = trajectory(GradientField(h), a, T, Certified(Euler(n_steps), max_steps=5000))
    rounding = 1e-12 * (1 + path.values.abs().amax(0))
    assert bool((path.values.diff(dim=0) >= -rounding).all())
    for c in (-1.0, 0.0, 0.5):
        inside = path.values >= c
        left = inside.int().diff(dim=0) < 0
        near = (path.values[1:] - c).abs() <= rounding
        assert not bool((left & ~near).any())


def test_uncertified_steps_do_leave_the_safe_set():
    """So the tests above can fail: the same steps without the certificate lower h."""
    h = quadratic_barrier(Raw(), 9, 9, seed=1)
    h.function_.curvature_ = -h.function_.curvature_.abs()
    h.function_.slope_ = torch.zeros(9, dtype=torch.float64)
    a = 0.2 * queries(6, width=9)
    plain = trajectory(GradientField(h), a, 12.0, Euler(6))
    assert bool((plain.values.diff(dim=0) < -0.1).any())
    certified = solve(GradientField(h), a, 12.0, Certified(Euler(6)))
    assert int(certified.rejected.sum()) > 0


def test_without_rejections_it_is_the_inner_solver():
    h, a = fitted("polynomial-2"), queries()
    for inner in INNER.values():
        certified = solve(GradientField(h), a, 0.3, Certified(inner))
        assert certified.rejected.tolist() == [0] * len(a)
        plain = solve(GradientField(h), a, 0.3, inner)
        torch.testing.assert_close(certified.state, plain.state)
        torch.testing.assert_close(certified.time, plain.time)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inner", [Euler(10), Euler(1), RK4(10)], ids=repr)
def test_maxima_are_approached_and_kept(inner, dtype):
    """A concave barrier: the flow ends at its top, in few attempts; from there it stays."""
    h = quadratic_barrier(Centred().fit(torch.randn(20, 5, dtype=torch.float64)), 5, 5, dtype=dtype)
    h.function_.curvature_ = -h.function_.curvature_.abs() - 0.1
    a = queries(6, width=5, dtype=dtype)
    solution = solve(GradientField(h), a, 50.0, Certified(inner, max_steps=400))
    top = h.function_.basis_ @ (-h.function_.slope_ / h.function_.curvature_)
    top = top * h.inputs.scale_ + h.inputs.mean_.to(dtype)
    highest = h.value(top)
    assert bool((h.value(solution.state) <= highest + 1e-5).all())
    # Narrow ridges of the form are climbed only as far as steps of 2⁻²⁰ allow.
    assert float((highest - h.value(solution.state)).max()) < 0.05 * float(
        (highest - h.value(a)).max()
    )
    if isinstance(inner, Euler):  # stages of others cancel there, and time passes
        assert bool((solution.time < 50).all())
    again = solve(GradientField(h), top[None], 1.0, Certified(inner))
    assert float((again.state - top).norm()) < 1e-3
    assert float(h.value(again.state) - highest) >= 0


def test_with_a_value_to_reach():
    h, a = fitted("polynomial-2-centred"), queries()
    until = ReachValue(h.value(a) + 0.3)
    solution = solve(GradientField(h), a, 4.0, Certified(Euler(2)), until=until)
    assert bool(solution.reached.all())
    torch.testing.assert_close(h.value(solution.state), until.value, rtol=0, atol=1e-7)


def test_in_any_metric():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    metric = MatrixMetric(root @ root.T)
    h, a = fitted("polynomial-2-raw"), queries()
    path = trajectory(GradientField(h, metric), a, 20.0, Certified(Euler(4)))
    values = torch.stack([h.value(state) for state in path.states])
    assert bool((values.diff(dim=0) >= 0).all())
