"""Flows of quadratic barriers in eigen-coordinates are those in all coordinates."""

import pytest
import torch

from barrier_cases import (
    BARRIERS,
    contrast,
    fitted,
    fitted_massive,
    massive_contrast,
    massive_queries,
    queries,
)
from flow_cases import FIXED_STEP, SOLVERS, quadratic_barrier
from odesteer.barriers import Centred, Raw, UnitSphere
from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.flows import Euler, Geodesic, GradientField, ReachValue, solve, trajectory

QUADRATIC = [
    name
    for name in BARRIERS
    if isinstance(getattr(fitted(name), "function_", None), QuadraticFunction)
]


def unrestricted(*args, **kwargs):
    """The same flow, step by step in all coordinates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ComposedBarrier, "restrict", lambda self, a, radial=False: None)
        return solve(*args, **kwargs)


def displacement_error(ours, theirs, start):
    return float(((ours - theirs).norm(dim=-1) / (theirs - start).norm(dim=-1)).max())


@pytest.mark.parametrize("T", [1.7, -1.7])
@pytest.mark.parametrize("barrier", QUADRATIC)
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_fixed_time(solver, barrier, T):
    h, a = fitted(barrier), queries()
    if "geodesic" in solver and not h.inputs.radial and fitted(barrier).function_.rank == 1:
        T = T / 10  # straight lines leave the sphere at once
    ours = solve(GradientField(h), a, T, SOLVERS[solver])
    theirs = unrestricted(GradientField(h), a, T, SOLVERS[solver])
    assert displacement_error(ours.state, theirs.state, a) < 1e-9
    torch.testing.assert_close(ours.time, theirs.time)


@pytest.mark.parametrize("barrier", ["linear-centred", "polynomial-2", "polynomial-2-centred"])
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_stopping_at_a_value(solver, barrier):
    h, a = fitted(barrier), queries()
    until = ReachValue(h.value(a) + 0.05)
    ours = solve(GradientField(h), a, 3.0, SOLVERS[solver], until=until)
    theirs = unrestricted(GradientField(h), a, 3.0, SOLVERS[solver], until=until)
    assert torch.equal(ours.reached, theirs.reached)
    torch.testing.assert_close(ours.state, theirs.state, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.time, theirs.time, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("barrier", QUADRATIC)
def test_a_massive_coordinate(barrier):
    h, a = fitted_massive(barrier), massive_queries()
    until = ReachValue(h.value(a).quantile(0.8))
    T = 30 * float(massive_contrast()[0].std(dim=0).norm())
    for solver in (Euler(7), SOLVERS["rk4"]):
        ours = solve(GradientField(h), a, T, solver, until=until)
        theirs = unrestricted(GradientField(h), a, T, solver, until=until)
        assert torch.equal(ours.reached, theirs.reached)
        moved = theirs.time > 0
        error = (ours.state - theirs.state).norm(dim=1) / theirs.time
        assert float(error[moved].max()) < 1e-5


INPUTS = {
    "sphere": UnitSphere(),
    "raw": Raw(),
    "centred": Centred().fit(torch.cat(contrast(width=600))),
}


@pytest.mark.parametrize("rank", [1, 64, 576, 599, 600])
@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("solver", list(FIXED_STEP))
def test_any_rank_in_float32(solver, inputs, rank):
    """Up to full rank, where what is left outside the subspace is only rounding."""
    h = quadratic_barrier(INPUTS[inputs], 600, rank, dtype=torch.float32)
    if inputs != "sphere":  # convex, since at a maximum rounding decides where a step goes
        h.function_.curvature_ = h.function_.curvature_.abs()
    a = queries(4, width=600, dtype=torch.float32)
    T = 0.3 * float(a.norm(dim=1).mean())
    ours = solve(GradientField(h), a, T, SOLVERS[solver])
    # Against float64, whose own error does not matter here.
    exact = h.to(dtype=torch.float64)
    exact.function_.basis_ = orthonormal(exact.function_.basis_)
    theirs = unrestricted(GradientField(exact), a.double(), T, SOLVERS[solver])
    assert displacement_error(ours.state.double(), theirs.state, a.double()) < 2e-5


def orthonormal(basis):
    """The nearest orthonormal basis: a float32 one is so to rounding only."""
    left, _, right = torch.linalg.svd(basis, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inputs", [UnitSphere(), Raw()], ids=repr)
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_activations_inside_the_subspace(solver, inputs, dtype):
    """Nothing at all is left outside the span of Q; its length may come out below zero."""
    h = quadratic_barrier(inputs, 200, 20, dtype=dtype)
    a = torch.randn(6, 20, dtype=dtype) @ h.function_.basis_.T
    ours = solve(GradientField(h), a, 2.0, SOLVERS[solver])
    theirs = unrestricted(GradientField(h), a, 2.0, SOLVERS[solver])
    tolerance = 3e-5 if dtype == torch.float32 else 1e-9
    assert displacement_error(ours.state, theirs.state, a) < tolerance
    outside = ours.state - ours.state @ h.function_.basis_ @ h.function_.basis_.T
    assert float(outside.norm(dim=1).max()) < 1e-4


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_activations_outside_the_subspace(solver):
    """Orthogonal to every eigenvector: the slope alone moves them."""
    h = quadratic_barrier(UnitSphere(), 30, 5)
    a = torch.randn(6, 30, dtype=torch.float64)
    basis = h.function_.basis_
    a = a - a @ basis @ basis.T
    ours = solve(GradientField(h), a, 2.0, SOLVERS[solver])
    theirs = unrestricted(GradientField(h), a, 2.0, SOLVERS[solver])
    assert displacement_error(ours.state, theirs.state, a) < 1e-8


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("n_steps", [1, 10, 100])
@pytest.mark.parametrize("barrier", [*QUADRATIC, "polynomial-3", "sketch-3", "neural"])
def test_the_geodesic_scheme_keeps_the_norm(barrier, n_steps, dtype, tolerance):
    """Of any barrier's flow, restricted or not."""
    h, a = fitted(barrier, dtype), queries(dtype=dtype)
    end = solve(GradientField(h), a, 3.0, Geodesic(n_steps)).state
    change = (end.norm(dim=1) / a.norm(dim=1) - 1).abs()
    assert float(change.max()) < max(tolerance, 1e-15)
    assert bool(((end - a).norm(dim=1) > 0.05).all())


@pytest.mark.parametrize("rank", [3, 512, 576, 600])
def test_the_geodesic_scheme_keeps_the_norm_in_large_widths(rank):
    h = quadratic_barrier(UnitSphere(), 600, rank, dtype=torch.float32)
    a = queries(4, width=600, dtype=torch.float32)
    end = solve(GradientField(h), a, 20.0, Geodesic(50)).state
    assert float((end.double().norm(dim=1) / a.double().norm(dim=1) - 1).abs().max()) < 1e-6


def test_explicit_euler_inflates_the_norm():
    """So the tests of the geodesic scheme can fail."""
    h, a = fitted("polynomial-2"), queries()
    end = solve(GradientField(h), a, 3.0, Euler(10)).state
    assert bool((end.norm(dim=1) > 1.005 * a.norm(dim=1)).all())


@pytest.mark.parametrize("solver", ["rk4", "bogacki-shampine", "certified-rk4"])
def test_the_exact_flow_keeps_the_norm(solver):
    """The field of a function of the direction is tangent to the sphere."""
    h, a = fitted("polynomial-3"), queries()
    end = solve(GradientField(h), a, 1.0, SOLVERS[solver]).state
    assert float((end.norm(dim=1) / a.norm(dim=1) - 1).abs().max()) < 1e-4


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_trajectories_are_lifted(solver):
    h, a = fitted("polynomial-2"), queries()
    ours = trajectory(GradientField(h), a, 1.0, SOLVERS[solver])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ComposedBarrier, "restrict", lambda self, a, radial=False: None)
        theirs = trajectory(GradientField(h), a, 1.0, SOLVERS[solver])
    torch.testing.assert_close(ours.states, theirs.states)
    torch.testing.assert_close(ours.values, theirs.values)
