"""Gradients through flows against central differences, in float64 and row by row."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from barrier_cases import WIDTH, contrast, fitted, massive_contrast, queries
from flow_cases import SOLVERS
from odesteer.barriers import Barrier, Centred, Contrast, LinearBarrier, PolynomialBarrier
from odesteer.flows import (
    RK4,
    Certified,
    Covariance,
    Euler,
    Geodesic,
    GradientField,
    MatrixMetric,
    Metric,
    ReachValue,
    Solution,
    solve,
)

every_solver = pytest.mark.parametrize("solver", list(SOLVERS))


def slopes(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """Directional derivatives of each row `[n]`, by central differences of two sizes."""
    found = []
    for size in (1e-5, 1e-6):
        ahead, behind = function(x + size * direction), function(x - size * direction)
        found.append((ahead - behind) / (2 * size))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)
    return found[1]


def agree(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> None:
    """The gradient of ``function`` `[n]` of rows of ``x`` is that of central differences."""
    variable = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(variable).sum(), variable)
    assert bool(torch.isfinite(gradient).all())
    found = gradient * direction
    found = found.flatten(1).sum(1) if found.ndim > 1 else found
    torch.testing.assert_close(found, slopes(function, x, direction), rtol=1e-3, atol=1e-5)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def reached_values(field: GradientField, solver: str, a: Tensor, T: float) -> Tensor:
    """A value for each row that its flow reaches on the way; the second row's is too high."""
    accurate = Geodesic(60) if SOLVERS[solver].spherical else RK4(60)
    end = solve(field, a, T, accurate).state
    h = field.barrier.value(a)
    shares = torch.linspace(0.2, 0.8, len(a), dtype=torch.float64)
    tau: Tensor = torch.lerp(h, field.barrier.value(end), shares)
    tau[1] += 100 * (tau[1] - h[1])
    return tau


def check_to_values(field: GradientField, solver: str, a: Tensor, T: float) -> None:
    """With respect to activations and to the values, of the states and of the times."""
    tau, weights = reached_values(field, solver, a, T), drawn(*a.shape)
    direction = drawn(*a.shape) * a.abs().clamp_min(0.1)

    def to(a: Tensor, tau: Tensor) -> Solution:
        return solve(field, a, T, SOLVERS[solver], until=ReachValue(tau))

    reached = to(a, tau).reached
    assert reached is not None
    assert reached.tolist() == [True, False, *[True] * (len(a) - 2)]
    agree(lambda x: (to(x, tau).state * weights).sum(1), a, direction)
    agree(lambda x: to(x, tau).time, a, direction)
    agree(lambda x: (to(a, x).state * weights).sum(1), tau, tau - field.barrier.value(a))


@pytest.mark.parametrize("T", [2.0, -2.0])
@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-3", "polynomial-2-centred"])
@every_solver
def test_to_values_for_each_row(solver: str, barrier: str, T: float) -> None:
    check_to_values(GradientField(fitted(barrier)), solver, queries(4), T)


@pytest.mark.parametrize("barrier", ["linear-sphere", "fourier", "neural", "product", "value"])
@pytest.mark.parametrize("solver", ["euler", "rk4", "bogacki-shampine", "certified-euler"])
def test_other_barriers(solver: str, barrier: str) -> None:
    check_to_values(GradientField(fitted(barrier)), solver, queries(4), 2.0)


@pytest.mark.parametrize(
    "metric",
    [Covariance(0.1), MatrixMetric(torch.diag(torch.linspace(0.2, 3, WIDTH)).double())],
    ids=["covariance", "matrix"],
)
@every_solver
def test_metrics(solver: str, metric: Metric) -> None:
    field = GradientField(fitted("polynomial-2"), metric.clone().fit(*contrast()))
    check_to_values(field, solver, queries(4), 2.0)


@every_solver
def test_steps_over_the_cap(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in files of earlier versions."""
    inner = SOLVERS[solver]
    inner = inner.solver if isinstance(inner, Certified) else inner
    if not hasattr(inner, "steps_over"):
        pytest.skip("chooses its steps by their error")
    monkeypatch.setattr(inner, "steps_over", "cap")
    check_to_values(GradientField(fitted("polynomial-2")), solver, queries(4), 2.0)


@every_solver
def test_for_a_time(solver: str) -> None:
    """With respect to activations and to a time for each row."""
    field, a, weights = GradientField(fitted("polynomial-2")), queries(4), drawn(4, WIDTH)
    T = torch.tensor([0.5, -0.7, 1.0, 1.5], dtype=torch.float64)
    end = SOLVERS[solver]
    agree(lambda x: (solve(field, x, T, end).state * weights).sum(1), a, drawn(4, WIDTH))
    agree(lambda x: (solve(field, a, x, end).state * weights).sum(1), T, torch.ones_like(T))


@every_solver
def test_a_massive_coordinate(solver: str) -> None:
    """One coordinate a thousand times the others, as in residual streams."""
    positive, negative = massive_contrast()
    barrier = PolynomialBarrier(inputs=Centred(), gamma=1.0, C=10.0, folds=0)
    field = GradientField(barrier.fit(positive, negative))
    scale = float(field.barrier.inputs.scale_)  # type: ignore[attr-defined]
    check_to_values(field, solver, massive_contrast(4, seed=2)[1], scale)


def test_rows_that_do_not_move() -> None:
    """There at the start, without a gradient, or both: the derivative is that of standing still."""

    class Flat(Barrier):
        """A barrier of no slope in half of the space."""

        def _fit(self, contrast: Contrast) -> None:
            raise NotImplementedError

        def value(self, a: Tensor) -> Tensor:
            return a[..., 0].clamp_min(0.0) ** 2

        def gradient(self, a: Tensor) -> Tensor:
            return torch.cat([2 * a[..., :1].clamp_min(0.0), 0 * a[..., 1:]], dim=-1)

        def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
            return self.value(a), self.gradient(a)

    a = torch.tensor([[-1.0, 1.0], [2.0, 1.0], [0.5, 1.0]], dtype=torch.float64)
    for solver in SOLVERS.values():
        if solver.spherical:
            continue  # of another path
        x = a.clone().requires_grad_()
        solution = solve(GradientField(Flat()), x, 4.0, solver, until=ReachValue(1.0))
        assert solution.reached is not None
        assert solution.reached.tolist() == [False, True, True]
        torch.testing.assert_close(solution.time.detach(), torch.tensor([0.0, 0, 0.5]).double())
        (gradient,) = torch.autograd.grad(solution.state.sum(), x)
        expected = torch.ones_like(a)
        expected[2, 0] = 0.0  # ends at 1 from wherever it starts
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("solver", [Euler(10), Euler(10, "cap"), RK4(4), Certified(Euler(5))])
def test_with_respect_to_the_barrier(solver: Euler) -> None:
    """So that what a flow climbs can be trained through it."""
    barrier = LinearBarrier(folds=0).fit(*contrast())
    function = barrier.function_
    weights = function.slope_.clone()
    a, tau = queries(4), barrier.value(queries(4)) + 0.5

    def end(w: Tensor) -> Tensor:
        function.slope_ = w
        return solve(GradientField(barrier), a, 5.0, solver, until=ReachValue(tau)).state

    variable, direction, size = weights.clone().requires_grad_(), drawn(*weights.shape), 1e-6
    cotangent = drawn(*a.shape)
    (gradient,) = torch.autograd.grad((end(variable) * cotangent).sum(), variable)
    ahead, behind = (end(weights + s * direction) for s in (size, -size))
    expected = ((ahead - behind) * cotangent).sum() / (2 * size)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-4, atol=1e-7)
