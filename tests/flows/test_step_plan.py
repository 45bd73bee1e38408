"""Steps of a flow to a value divide the distance to it, and nothing within the cap is missed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from barrier_cases import fitted, massive_contrast, queries
from flow_cases import SOLVERS, StepwiseEuler, quadratic_barrier
from odesteer.barriers import Barrier, Centred, PolynomialBarrier, UnitSphere
from odesteer.errors import InvalidInputError
from odesteer.flows import (
    RK4,
    Certified,
    Euler,
    FixedStep,
    Geodesic,
    GradientField,
    Midpoint,
    ReachValue,
    Solver,
    ThreeEighths,
    solve,
    trajectory,
)

TEN: list[Solver] = [
    Euler(10),
    StepwiseEuler(10),
    Midpoint(10),
    RK4(10),
    ThreeEighths(10),
    Geodesic(10),
    Certified(Euler(10)),
]


def values_on_the_way(field: GradientField, a: Tensor, T: float, share: float) -> Tensor:
    accurate = solve(field, a, T, Geodesic(200)).state
    tau: Tensor = torch.lerp(field.barrier.value(a), field.barrier.value(accurate), share)
    return tau


def steps_used(field: GradientField, a: Tensor, T: float, solver: Solver, tau: Tensor) -> Tensor:
    """The number of steps of each row, the one that crosses included."""
    path = trajectory(field, a, T, solver, until=ReachValue(tau))
    assert path.solution.reached is not None
    assert bool(path.solution.reached.all())
    return (path.times.diff(dim=0) > 0).sum(dim=0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("barrier", ["polynomial-2", "polynomial-3", "fourier-sphere"])
@pytest.mark.parametrize("solver", TEN, ids=repr)
def test_ten_steps_are_about_ten(solver: Solver, barrier: str, share: float) -> None:
    """However near the value is, and whatever the cap."""
    field, a = GradientField(fitted(barrier)), queries()
    tau = values_on_the_way(field, a, 1.0, share)
    for cap in (1.0, 10.0):
        used = steps_used(field, a, cap, solver, tau)
        assert int(used.min()) >= 9, used
        assert int(used.max()) <= 12, used


def test_steps_over_the_cap_are_few() -> None:
    """So the test above can fail."""
    field, a = GradientField(fitted("polynomial-2")), queries()
    tau = values_on_the_way(field, a, 1.0, 0.1)
    assert int(steps_used(field, a, 1.0, Euler(10, "cap"), tau).max()) <= 2
    assert int(steps_used(field, a, 1.0, RK4(10, "cap"), tau).max()) <= 2


@pytest.mark.parametrize("make", [Euler, StepwiseEuler, Midpoint, RK4, Geodesic])
def test_paths_are_followed_more_closely(make: type[FixedStep]) -> None:
    field, a = GradientField(fitted("polynomial-2")), queries()
    until = ReachValue(values_on_the_way(field, a, 3.0, 0.3))
    accurate = Geodesic(400) if make is Geodesic else RK4(400)
    end = solve(field, a, 6.0, accurate, until=until).state
    errors = [
        float((solve(field, a, 6.0, make(10, over), until=until).state - end).norm(dim=1).mean())
        for over in ("distance", "cap")
    ]
    assert errors[0] < errors[1]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(1e-3, 0.98),
    make=st.sampled_from([Euler, StepwiseEuler, Midpoint, RK4, Geodesic]),
    n=st.integers(2, 20),
    cap=st.floats(1.0, 5.0),
    radial=st.booleans(),
    up=st.booleans(),
)
def test_what_steps_over_the_cap_reach_is_reached(seed, share, make, n, cap, radial, up):
    """On random quadratic barriers, indefinite ones too, on the sphere and off it."""
    barrier = quadratic_barrier(UnitSphere() if radial else fitted_centred(), 12, 5, seed % 97)
    field, a = GradientField(barrier), queries(3, seed=seed)
    T = cap if up else -cap
    tau = values_on_the_way(field, a, T / cap, share)
    old = solve(field, a, T, make(n, "cap"), until=ReachValue(tau))
    new = solve(field, a, T, make(n), until=ReachValue(tau))
    assert bool((new.reached | ~old.reached).all())
    gap = (barrier.value(new.state) - tau).abs()[new.reached]
    assert bool((gap <= 1e-6 * tau.abs().clamp_min(1)[new.reached]).all())
    assert bool((new.time <= abs(T) * (1 + 1e-9)).all())
    # What is not reached has used up the cap.
    missed = new.time[~new.reached]
    torch.testing.assert_close(missed, torch.full_like(missed, abs(T)), rtol=1e-5, atol=0)


def fitted_centred() -> Centred:
    return Centred().fit(torch.randn(20, 12, generator=torch.Generator().manual_seed(1)).double())


def test_a_single_step_is_the_cap() -> None:
    field, a = GradientField(fitted("polynomial-2")), queries()
    until = ReachValue(fitted("polynomial-2").value(a) + 0.02)
    for make in (Euler, StepwiseEuler, RK4):
        old, new = (
            solve(field, a, 5.0, make(1, over), until=until) for over in ("cap", "distance")
        )
        assert torch.equal(old.state, new.state)
        assert torch.equal(old.time, new.time)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_no_step_is_longer_than_over_the_cap(solver: str) -> None:
    """A value out of reach: the flow of a fixed time, and no longer a last step."""
    field, a = GradientField(fitted("polynomial-2")), queries()
    path = trajectory(field, a, 1.5, SOLVERS[solver], until=ReachValue(1e6))
    assert not bool(path.solution.reached.any())  # type: ignore[union-attr]
    free = solve(field, a, 1.5, SOLVERS[solver])
    torch.testing.assert_close(path.solution.state, free.state)
    inner = SOLVERS[solver].solver if solver.startswith("certified") else SOLVERS[solver]  # type: ignore[attr-defined]
    if isinstance(inner, FixedStep):
        assert float(path.times.diff(dim=0).max()) <= 1.5 / inner.n_steps * (1 + 1e-9)


@pytest.mark.parametrize("solver", TEN, ids=repr)
def test_a_massive_coordinate(solver: Solver) -> None:
    """The cap, a mean norm, is far longer than the way; ten steps are still about ten."""
    positive, negative = massive_contrast()
    barrier = PolynomialBarrier(folds=0).fit(positive, negative)
    a = massive_contrast(4, seed=2)[1]
    field, cap = GradientField(barrier), float(positive.norm(dim=1).mean())
    tau = values_on_the_way(field, a, 0.05 * cap, 0.5)
    used = steps_used(field, a, cap, solver, tau)
    assert int(used.min()) >= 9, used
    assert int(used.max()) <= 14, used


class Plateau(Barrier):
    """A barrier that is flat where the first coordinate is negative."""

    def _fit(self, contrast: object) -> None:
        raise NotImplementedError

    def value(self, a: Tensor) -> Tensor:
        return a[..., 0].clamp_min(0.0)

    def gradient(self, a: Tensor) -> Tensor:
        return torch.cat([(a[..., :1] > 0).to(a), torch.zeros_like(a[..., 1:])], dim=-1)


@pytest.mark.parametrize("T", [2.0, -2.0])
@pytest.mark.parametrize("until", [None, ReachValue(0.5), ReachValue(9.0)])
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_no_time_passes_without_a_gradient(solver: str, until: ReachValue | None, T: float) -> None:
    """Whatever the solver, to a value and for a time."""
    a = torch.tensor([[-1.0, 3.0], [-2.0, 0.0]], dtype=torch.float64)
    solution = solve(GradientField(Plateau()), a, T, SOLVERS[solver], until=until)
    assert torch.equal(solution.state, a)
    assert solution.time.tolist() == [0.0, 0.0]
    if until is not None:
        assert solution.reached is not None
        assert solution.reached.tolist() == [T < 0, T < 0]


def test_time_passes_until_the_gradient_is_zero() -> None:
    """Steered down from above the plateau: a flow that ends where the plateau begins."""
    a = torch.tensor([[0.9, 3.0], [5.0, 1.0]], dtype=torch.float64)
    for solver in (Euler(10), Certified(Euler(10))):
        solution = solve(GradientField(Plateau()), a, -3.0, solver)
        torch.testing.assert_close(solution.time, (a - solution.state).norm(dim=1))
        assert float(solution.time[0]) < 1.3


def test_stepwise_and_compiled_steps_agree_without_a_gradient() -> None:
    """The published form of the question: explicit Euler, with numba and without."""
    barrier = quadratic_barrier(UnitSphere(), 12, 4)
    barrier.function_.slope_.zero_()  # type: ignore[union-attr]
    basis = barrier.function_.basis_  # type: ignore[union-attr]
    a = torch.randn(5, 12, generator=torch.Generator().manual_seed(2)).double()
    a -= a @ basis @ basis.T
    a[0] = basis[:, 0]
    for solver in (Euler(10), StepwiseEuler(10), RK4(10)):
        for until in (None, ReachValue(100.0)):
            solution = solve(GradientField(barrier), a, 1.0, solver, until=until)
            still = solution.time == 0
            assert torch.equal(solution.state[still], a[still])


def test_other_words_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'distance' or 'cap', not 'time'"):
        solve(GradientField(fitted("polynomial-2")), queries(), 1.0, Euler(10, "time"))
