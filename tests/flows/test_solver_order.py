"""Every solver on problems with exact solutions: the observed order is the stated one."""

import math
from functools import cache

import pytest
import torch

from barrier_cases import fitted, queries
from flow_cases import SOLVERS, AffineField
from odesteer.barriers import UnitSphere
from odesteer.barriers.composed import FixedBarrier
from odesteer.barriers.quadratic import linear_function
from odesteer.errors import InvalidInputError
from odesteer.flows import (
    RK4,
    BogackiShampine,
    Certified,
    ConstantField,
    EmbeddedPair,
    Euler,
    FixedStep,
    Geodesic,
    GradientField,
    Midpoint,
    SumField,
    ThreeEighths,
    registry,
    solve,
)


class EqualSteps(FixedStep):
    """The advancing formula of an embedded pair with equal steps."""

    def __init__(self, n_steps, pair):
        super().__init__(n_steps)
        self.pair = pair

    def step(self, field, a, dt, slope):
        return self.pair.step_with_error(field, a, dt, slope)[0]


SPHERE = {"geodesic": lambda n: Geodesic(n)}
EUCLIDEAN = {
    "euler": lambda n: Euler(n),
    "midpoint": lambda n: Midpoint(n),
    "rk4": lambda n: RK4(n),
    "three-eighths": lambda n: ThreeEighths(n),
    "bogacki-shampine": lambda n: EqualSteps(n, BogackiShampine()),
}
CERTIFIED = {
    "certified-euler": lambda n: Certified(Euler(n)),
    "certified-midpoint": lambda n: Certified(Midpoint(n)),
    "certified-rk4": lambda n: Certified(RK4(n)),
}


def order_of(make):
    solver = make(1)
    return solver.pair.order if isinstance(solver, EqualSteps) else solver.order


def test_every_registered_solver_is_covered():
    covered = {type(make(1)) for make in (EUCLIDEAN | SPHERE | CERTIFIED).values()}
    covered |= {BogackiShampine}
    assert {registry.get(name) for name in registry} <= covered
    assert {registry.get(name) for name in registry} <= {type(s) for s in SOLVERS.values()}


def exact_affine(matrix, offset, a, T):
    """a(T) for da/dt = Aa + b, from the matrix exponential of [[A, b], [0, 0]]."""
    d = len(offset)
    block = torch.zeros(d + 1, d + 1, dtype=torch.float64)
    block[:d, :d], block[:d, d] = matrix, offset
    flow = torch.matrix_exp(T * block)
    return a @ flow[:d, :d].T + flow[:d, d]


GENERATOR = torch.Generator().manual_seed(7)
A = torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)
ZERO = torch.zeros(4, dtype=torch.float64)
STARTS = torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64)
PROBLEMS = {
    "exponential": (torch.eye(4, dtype=torch.float64) * -0.8, ZERO),
    "linear": (A / 2, torch.linspace(-1, 1, 4, dtype=torch.float64)),
    "rotation": (A - A.T, ZERO),
}


def observed_order(error, steps):
    """The slope of log error against log step size."""
    x = -torch.tensor([math.log(n) for n in steps])
    y = torch.tensor([math.log(error(n)) for n in steps])
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def step_counts(order):
    return (10, 20, 40, 80) if order >= 3 else (50, 100, 200)


@pytest.mark.parametrize("T", [1.0, -0.7])
@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("name", list(EUCLIDEAN))
def test_order_on_affine_fields(name, problem, T):
    make, (matrix, offset) = EUCLIDEAN[name], PROBLEMS[problem]
    expected = exact_affine(matrix, offset, STARTS, T)

    def error(n):
        state = solve(AffineField(matrix, offset), STARTS, T, make(n)).state
        return float((state - expected).norm())

    order = order_of(make)
    assert observed_order(error, step_counts(order)) == pytest.approx(order, abs=0.1)


def test_order_of_the_geodesic_scheme_on_rotations():
    matrix, _ = PROBLEMS["rotation"]
    expected = exact_affine(matrix, ZERO, STARTS, 0.5)

    def error(n):
        return float(
            (solve(AffineField(matrix, ZERO), STARTS, 0.5, Geodesic(n)).state - expected).norm()
        )

    assert observed_order(error, (100, 200, 400)) == pytest.approx(1, abs=0.1)
    # In a plane the circle is the trajectory.
    plane = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    quarter = solve(AffineField(plane, ZERO[:2]), STARTS[:, :2], math.pi / 2, Geodesic(1)).state
    torch.testing.assert_close(quarter, STARTS[:, :2] @ plane.T)


@pytest.mark.parametrize("name", list(EUCLIDEAN))
def test_constant_fields_are_exact(name):
    direction = torch.linspace(-1, 2, 4, dtype=torch.float64)
    solution = solve(ConstantField(direction), STARTS, -1.5, EUCLIDEAN[name](7))
    torch.testing.assert_close(solution.state, STARTS - 1.5 * direction)
    torch.testing.assert_close(solution.time, torch.full((5,), 1.5, dtype=torch.float64))


@cache
def fine_flow(barrier, T):
    return solve(GradientField(fitted(barrier)), queries(4), T, RK4(250)).state


@pytest.mark.parametrize("T", [1.2, -1.0])
@pytest.mark.parametrize(
    ("name", "barrier"),
    [
        *((name, "polynomial-2-centred") for name in EUCLIDEAN | CERTIFIED),
        *((name, "polynomial-3") for name in EUCLIDEAN | CERTIFIED | SPHERE),
        *((name, "neural") for name in ("euler", "midpoint", "rk4")),
    ],
)
def test_order_on_gradient_fields(name, barrier, T):
    """The unit field of a barrier, in eigen-coordinates where it has them."""
    make = (EUCLIDEAN | SPHERE | CERTIFIED)[name]
    field, a, expected = GradientField(fitted(barrier)), queries(4), fine_flow(barrier, T)

    def error(n):
        return float((solve(field, a, T, make(n)).state - expected).norm())

    order = order_of(make)
    steps = (10, 20, 40) if order >= 3 else (30, 60, 120)
    assert observed_order(error, steps) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", list(EUCLIDEAN | SPHERE | CERTIFIED))
def test_a_flow_with_a_closed_form(name):
    """A linear function of the direction turns a towards w: φ(t) = φ(0) - t/‖a‖."""
    w = torch.linspace(-1, 1, 6, dtype=torch.float64)
    field = GradientField(FixedBarrier.of(UnitSphere(), linear_function(w, 0.0)))
    a, T = queries(5, width=6), 0.9
    norm, unit = a.norm(dim=1), w / w.norm()
    angle = torch.arccos(a @ unit / norm)
    tangent = unit - (a @ unit / norm**2)[:, None] * a
    tangent = norm[:, None] * tangent / tangent.norm(dim=1, keepdim=True)
    turn = (T / norm)[:, None]
    expected = torch.cos(turn) * a + torch.sin(turn) * tangent
    assert bool((angle - T / norm > 0).all())
    make = (EUCLIDEAN | SPHERE | CERTIFIED)[name]

    def error(n):
        return float((solve(field, a, T, make(n)).state - expected).norm())

    if name in SPHERE:
        assert error(3) < 1e-12  # the great circle is the flow
    else:
        order = order_of(make)
        assert observed_order(error, step_counts(order)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-6])
def test_the_embedded_pair_keeps_its_tolerance(rtol):
    matrix, offset = PROBLEMS["linear"]
    expected = exact_affine(matrix, offset, STARTS, 2.0)
    solution = solve(AffineField(matrix, offset), STARTS, 2.0, BogackiShampine(rtol, atol=0.0))
    error = (solution.state - expected).norm(dim=1) / STARTS.norm(dim=1)
    # The tolerance is for a step; a few of them and growth along the way multiply it.
    assert float(error.max()) < 30 * rtol
    torch.testing.assert_close(solution.time, torch.full((5,), 2.0, dtype=torch.float64))


def test_the_error_estimate_is_of_third_order():
    """The embedded formula is of order 2, so the estimate of one step falls as Δt³."""
    matrix, offset = PROBLEMS["linear"]
    field = AffineField(matrix, offset)

    def estimate(n):
        dt = torch.full((5, 1), 1 / n, dtype=torch.float64)
        return float(BogackiShampine().step_with_error(field, STARTS, dt, field(STARTS))[1].norm())

    assert observed_order(estimate, (10, 20, 40, 80)) == pytest.approx(3, abs=0.1)


def test_each_activation_has_its_own_step_size():
    """A stiff row among easy ones: the result of the easy ones does not depend on it."""
    field = GradientField(fitted("polynomial-2-raw"))
    a = queries(6)
    solver = BogackiShampine(rtol=1e-5)
    together = solve(field, torch.cat([a, 1e-2 * a[:1]]), 2.0, solver)
    alone = solve(field, a, 2.0, solver)
    torch.testing.assert_close(together.state[:6], alone.state, rtol=1e-10, atol=1e-10)
    assert torch.equal(together.rejected[:6], alone.rejected)


def test_sums_of_fields():
    matrix, offset = PROBLEMS["linear"]
    direction = torch.ones(4, dtype=torch.float64)
    total = SumField([AffineField(matrix, offset), ConstantField(direction)], [0.5, -2.0])
    expected = solve(AffineField(matrix / 2, offset / 2 - 2), STARTS, 1.0, RK4(20)).state
    torch.testing.assert_close(solve(total, STARTS, 1.0, RK4(20)).state, expected)
    with pytest.raises(InvalidInputError, match="2 fields and 1 weights"):
        SumField([AffineField(matrix, offset), ConstantField(direction)], [1.0])


@pytest.mark.parametrize("name", list(registry))
def test_solvers_state_order_and_stages(name):
    solver = registry.get(name)()
    assert solver.order in (1, 2, 3, 4)
    assert solver.stages >= 1
    assert solver.clone().get_params().keys() == solver.get_params().keys()
    with pytest.raises(
        InvalidInputError, match=f"{type(solver).__name__} has no parameter 'steps'"
    ):
        solver.with_params(steps=5)
    with pytest.raises(TypeError, match="step_size"):
        registry.get(name)(step_size=0.1)


@pytest.mark.parametrize("name", list(EUCLIDEAN))
def test_a_step_evaluates_the_field_as_often_as_stated(name):
    class Counting(AffineField):
        calls = 0

        def __call__(self, a):
            self.calls += 1
            return super().__call__(a)

    field = Counting(*PROBLEMS["linear"])
    solver = EUCLIDEAN[name](5)
    solve(field, STARTS, 1.0, solver)
    stages = solver.pair.stages if isinstance(solver, EqualSteps) else solver.stages
    assert field.calls == 5 * stages


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Euler(0), "n_steps must be a positive integer, not 0"),
        (RK4(2.0), "n_steps must be a positive integer, not 2.0"),
        (Midpoint(True), "n_steps"),
        (BogackiShampine(rtol=0.0, atol=0.0), "not both 0"),
        (BogackiShampine(rtol=-1.0), "rtol and atol"),
        (BogackiShampine(rtol=float("nan")), "rtol and atol"),
        (BogackiShampine(max_steps=0), "max_steps"),
        (Certified(BogackiShampine()), "takes a fixed-step solver"),
        (Certified(Euler(0)), "n_steps"),
        (Certified(max_steps=0), "max_steps"),
    ],
    ids=repr,
)
def test_unusable_parameters(solver, message):
    field = GradientField(fitted("linear-raw"))
    with pytest.raises(InvalidInputError, match=message):
        solve(field, queries(), 1.0, solver)


def test_an_embedded_pair_is_a_type():
    assert isinstance(BogackiShampine(), EmbeddedPair)
    assert not isinstance(Euler(), EmbeddedPair)
