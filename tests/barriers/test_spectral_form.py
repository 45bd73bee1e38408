"""Quadratic functions: eigenbasis, rank, and restriction to the retained subspace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import WIDTH, contrast, fitted, queries
from odesteer.barriers import Centred, PolynomialBarrier, Raw, UnitSphere
from odesteer.barriers.composed import FixedBarrier
from odesteer.barriers.polynomial import KernelExpansion
from odesteer.barriers.quadratic import (
    QuadraticFunction,
    linear_function,
    quadratic_from_kernel,
    quadratic_from_matrix,
    truncate,
)
from odesteer.flows import Euler, GradientField, solve


def quadratic(width, rank, seed=0):
    """A random quadratic function of given rank, in its eigenbasis."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(drawn)[0]
    curvature, slope = torch.randn(2, rank, generator=generator, dtype=torch.float64)
    return QuadraticFunction.of(basis, curvature, slope, 0.3)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 14), width=st.integers(1, 9), seed=st.integers(0, 99), c0=st.floats(0, 2))
def test_spectral_form_equals_the_kernel_form(n, width, seed, c0):
    """Fewer and more points than coordinates, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, width, generator=generator, dtype=torch.float64)
    points[n // 2] = points[0]
    weights = torch.randn(n, generator=generator, dtype=torch.float64)
    spectral = quadratic_from_kernel(points, weights, 0.4, c0, -0.7)
    primal = KernelExpansion(2, 0.4, c0).over(points, weights, -0.7)
    x = torch.randn(5, width, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(spectral.value(x), primal.value(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(spectral.gradient(x), primal.gradient(x), rtol=1e-9, atol=1e-9)
    assert spectral.rank == min(n, width)
    eye = torch.eye(spectral.rank, dtype=torch.float64)
    torch.testing.assert_close(spectral.basis_.T @ spectral.basis_, eye)


def test_quadratic_from_matrix():
    matrix = torch.randn(6, 6, dtype=torch.float64)
    matrix = matrix + matrix.T
    slope, x = torch.randn(2, 6, dtype=torch.float64)
    function = quadratic_from_matrix(matrix, slope, 2.0)
    expected = x @ matrix @ x + 2 * slope @ x + 2.0
    torch.testing.assert_close(function.value(x), expected)
    torch.testing.assert_close(function.gradient(x), 2 * matrix @ x + 2 * slope)


def test_truncation_keeps_the_slope_and_the_curvature_of_the_kept_span():
    full = quadratic(9, 9)
    cut = truncate(full, 4)
    assert cut.rank == 5
    origin = torch.zeros(9, dtype=torch.float64)
    torch.testing.assert_close(cut.gradient(origin), full.gradient(origin))
    inside = cut.basis_ @ torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(cut.value(inside), full.value(inside))
    assert truncate(full, 9) is full


def test_a_linear_function_of_no_weight_is_constant():
    function = linear_function(torch.zeros(4), 0.5)
    assert function.value(torch.randn(3, 4)).tolist() == [0.5] * 3
    assert torch.equal(function.gradient(torch.randn(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("inputs", [UnitSphere(), Raw(), Centred()], ids=repr)
@pytest.mark.parametrize("rank", [1, 7, WIDTH - 1, WIDTH])
def test_restriction_has_the_value_and_the_gradient(inputs, rank):
    """In the coordinates of the restriction: same h, and a gradient that lifts to the same one."""
    inputs = inputs.clone().fit(torch.cat(contrast()))
    barrier = FixedBarrier.of(inputs, quadratic(WIDTH, rank))
    a = queries()
    restriction = barrier.restrict(a)
    torch.testing.assert_close(restriction.barrier.value(restriction.state), barrier.value(a))
    gradient = restriction.barrier.gradient(restriction.state)
    torch.testing.assert_close(gradient.norm(dim=1), barrier.gradient(a).norm(dim=1))
    small = 1e-6
    lifted = restriction.lift(restriction.state + small * gradient)
    torch.testing.assert_close((lifted - a) / small, barrier.gradient(a), rtol=1e-6, atol=1e-8)
    assert torch.equal(restriction.lift(restriction.state), a)


def test_only_quadratics_are_restricted():
    assert fitted("polynomial-3").restrict(queries()) is None
    assert fitted("neural").restrict(queries()) is None
    assert fitted("sketch-2").restrict(queries()) is not None


def held_out_error(parameters, width, n, T, decay):
    """The largest relative displacement error of a barrier's rank on activations it never saw."""
    generator = torch.Generator().manual_seed(5)
    scale = torch.arange(1, width + 1).double() ** (-decay / 2)
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    draw = torch.randn(2, n + 50, width, generator=generator, dtype=torch.float64)
    clouds = 5 * draw * scale @ axes.T + torch.randn(width, generator=generator)
    clouds[0] += axes[:, 5]
    train, unseen = clouds[:, :n], clouds[:, n:].flatten(0, 1)
    chosen = PolynomialBarrier(folds=0, **parameters).fit(*train)
    full = chosen.with_params(rank_tolerance=0.0).fit(*train)
    length = T * float(unseen.norm(dim=1).mean())
    exact, moved = (
        solve(GradientField(barrier), unseen, length, Euler()).state for barrier in (full, chosen)
    )
    error = (moved - exact).norm(dim=1) / (exact - unseen).norm(dim=1)
    return float(error.max()), chosen.function_.rank, full.function_.rank


@pytest.mark.parametrize("T", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"C": 1e4},
        {"inputs": Centred(), "gamma": 1.0, "C": 10.0},
        {"rank_tolerance": 1e-2},
        {"max_exact": 50, "n_landmarks": 60},
    ],
    ids=str,
)
def test_the_chosen_rank_holds_its_tolerance_on_unseen_activations(parameters, T):
    error, rank, full = held_out_error(parameters, width=80, n=80, T=T, decay=1.5)
    assert error <= parameters.get("rank_tolerance", 1e-4)
    assert rank < full


def test_a_looser_tolerance_keeps_fewer_eigenvectors():
    ranks = [
        held_out_error({"rank_tolerance": tolerance}, width=80, n=80, T=0.5, decay=1.5)[1]
        for tolerance in (1e-6, 1e-4, 1e-2)
    ]
    assert ranks[0] > ranks[1] > ranks[2]
