"""ODESteer: what its parameters mean."""

import math

import pytest
import torch
from method_cases import steering

from barrier_cases import MASSIVE, WIDTH, contrast, massive_contrast, massive_queries, queries
from odesteer.barriers import LinearBarrier, PolynomialBarrier, TensorSketchBarrier, UnitSphere
from odesteer.errors import InvalidInputError, NotFittedError
from odesteer.flows import (
    RK4,
    Covariance,
    Euclidean,
    Euler,
    GradientField,
    MatrixMetric,
    solve,
)
from odesteer.methods import ODESteer, Spherical


def test_the_paper_s_setting():
    paper = ODESteer.paper(T=3.0, seed=7)
    barrier = paper.barrier
    assert isinstance(barrier, TensorSketchBarrier)
    assert (barrier.degree, barrier.gamma, barrier.c0) == (2, 0.1, 1.0)
    assert (barrier.n_components, barrier.C, barrier.seed) == (8000, 1.0, 7)
    assert isinstance(barrier.inputs, UnitSphere)
    assert isinstance(paper.solver, Euler)
    assert paper.solver.n_steps == 10
    assert isinstance(paper.metric, Euclidean)
    assert str(paper.default_amount) == "T=3.0"


def test_time_is_arc_length_and_strength_counts_in_class_deviations():
    method, a = steering("odesteer"), queries()
    norms = torch.cat(contrast()).norm(dim=1)
    assert method.mean_norm_ == pytest.approx(float(norms.mean()))
    positive, negative = contrast()
    axis = torch.nn.functional.normalize(positive.mean(dim=0) - negative.mean(dim=0), dim=0)
    assert len(positive) == len(negative)
    along = torch.cat([positive, negative]) @ axis
    assert method.strength_unit == pytest.approx(float(along.std(correction=0)))
    by_strength = method.steer(a, strength=0.3)
    torch.testing.assert_close(by_strength, method.steer(a, T=0.3 * method.strength_unit))
    tensor = torch.full((len(a),), 0.3, dtype=torch.float64)
    torch.testing.assert_close(method.steer(a, strength=tensor), by_strength)
    one = method.with_params(solver=Euler(1)).fit(*contrast()).steer(a, T=0.5)
    torch.testing.assert_close((one - a).norm(dim=1), torch.full((7,), 0.5, dtype=torch.float64))


def test_steering_is_the_flow_of_the_field():
    method, a = steering("odesteer-covariance"), queries()
    assert isinstance(method.field, GradientField)
    flow = solve(method.field, a, 0.8, method.solver)
    torch.testing.assert_close(method.steer(a, T=0.8), flow.state)


def test_a_level_stops_within_max_strength():
    a = queries(12)
    short = ODESteer(PolynomialBarrier(folds=0), max_strength=0.05).fit(*contrast())
    solution = short.solve(a)
    assert not bool(solution.reached.all())
    capped = solution.time[~solution.reached]
    torch.testing.assert_close(capped, torch.full_like(capped, 0.05 * short.strength_unit))
    long = ODESteer(PolynomialBarrier(folds=0), max_strength=8.0).fit(*contrast())
    assert bool(long.solve(a).reached.all())


def test_a_level_hardly_depends_on_the_number_of_steps():
    a = queries(12)
    ends = [
        ODESteer(PolynomialBarrier(folds=0), solver, max_strength=2.0).fit(*contrast()).steer(a)
        for solver in (Euler(20), Euler(1000), RK4(20))
    ]
    moved = (ends[1] - a).norm(dim=1).mean()
    assert float((ends[0] - ends[1]).norm(dim=1).mean() / moved) < 0.1
    assert float((ends[2] - ends[1]).norm(dim=1).mean() / moved) < 0.002


def test_the_default_amount():
    a = queries()
    by_level = ODESteer(level=0.7).fit(*contrast())
    assert torch.equal(by_level.steer(a), by_level.steer(a, level=0.7))
    by_time = ODESteer(T=0.4).fit(*contrast())
    assert torch.equal(by_time.steer(a), by_time.steer(a, T=0.4))
    neither = ODESteer(amount=None)
    with pytest.raises(InvalidInputError, match=r"no default amount.*ODESteer\(amount=1.0\)"):
        neither.fit(*contrast())
    with pytest.raises(InvalidInputError, match="exactly one"):
        ODESteer(level=1.0, T=1.0)
    with pytest.raises(InvalidInputError, match="'interpolation'"):
        ODESteer(interpolation=1.0).fit(*contrast())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("method", [ODESteer, Spherical])
def test_max_strength_is_positive(method, value):
    with pytest.raises(InvalidInputError, match="max_strength must be a positive number"):
        method(max_strength=value).fit(*contrast())


def test_bad_solvers_and_metrics_are_found_at_fit():
    with pytest.raises(InvalidInputError, match="n_steps"):
        ODESteer(solver=Euler(0)).fit(*contrast())
    with pytest.raises(InvalidInputError, match="not symmetric"):
        ODESteer(metric=MatrixMetric(torch.eye(WIDTH).roll(1, 0))).fit(*contrast())
    with pytest.raises(InvalidInputError, match="shrinkage"):
        ODESteer(metric=Covariance(2.0)).fit(*contrast())


def test_the_prototypes_are_not_fitted_in_place():
    barrier, metric = PolynomialBarrier(), Covariance()
    method = ODESteer(barrier, metric=metric).fit(*contrast())
    assert not barrier.is_fitted
    assert not metric.is_fitted
    assert method.barrier.is_fitted
    assert method.metric.is_fitted
    assert not ODESteer().barrier.is_fitted


def test_groups_reach_the_barrier():
    owners = torch.arange(40) // 4
    grouped = ODESteer().fit(*contrast(), groups=(owners, owners))
    alone = PolynomialBarrier().fit(*contrast(), groups=(owners, owners))
    assert grouped.barrier.held_out_ == alone.held_out_
    assert grouped.barrier.held_out_ != ODESteer().fit(*contrast()).barrier.held_out_


@pytest.mark.parametrize("name", ["odesteer", "odesteer-covariance", "odesteer-certified"])
@pytest.mark.parametrize("amount", [{"level": 0.8}, {"T": 0.5}, {"strength": -0.1}, {}])
def test_trajectories_end_where_steering_does(name, amount):
    method, a = steering(name), queries(6).reshape(2, 3, WIDTH)
    path = method.trajectory(a, **amount)
    torch.testing.assert_close(path.states[-1], method.steer(a, **amount), rtol=1e-6, atol=1e-6)
    assert torch.equal(path.states[0], a)
    assert path.values.shape == path.speeds.shape == path.times.shape
    torch.testing.assert_close(path.values, method.barrier.value(path.states))


def test_trajectories_are_checked_like_steering():
    method, a = steering("odesteer"), queries()
    with pytest.raises(NotFittedError):
        ODESteer().trajectory(a)
    with pytest.raises(InvalidInputError, match="fitted on width"):
        method.trajectory(a[:, 1:])
    with pytest.raises(InvalidInputError, match="level has shape"):
        method.trajectory(a, level=torch.ones(3))
    with pytest.raises(InvalidInputError, match="exactly one"):
        method.trajectory(a, level=1.0, T=1.0)
    a[2] = math.nan
    with pytest.raises(InvalidInputError, match="1 of 7 activations"):
        method.trajectory(a)
    half = queries().half()
    assert method.trajectory(half, T=0.5).states.dtype == torch.float32


def test_levels_without_a_usable_barrier():
    """Noise for labels: held-out quantiles may lie on the wrong side, and then levels say so."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, 30, 60, generator=generator)
    method = ODESteer(LinearBarrier(C=100.0)).fit(noise[0], noise[1])
    if method.barrier.upper_ > 0:
        method.barrier.upper_ = -method.barrier.upper_
    with pytest.raises(InvalidInputError, match=r"level 1\.5 has no meaning.*use T or strength"):
        method.steer(noise[0])
    assert method.steer(noise[0], strength=0.1).shape == noise[0].shape


def test_the_standardised_form_sees_what_a_massive_coordinate_hides():
    positive, negative = massive_contrast(100)
    negative[:, MASSIVE] = positive[torch.randperm(100), MASSIVE]
    sphere = ODESteer(PolynomialBarrier(inputs=UnitSphere()))
    plain, standardized = ODESteer(), ODESteer.standardized()
    assert repr(standardized) == (
        "ODESteer(barrier=PolynomialBarrier(C=100.0, inputs=Standardized()), metric=Covariance())"
    )
    auc = [
        method.fit(positive, negative).barrier.held_out_["auc"]
        for method in (sphere, plain, standardized)
    ]
    assert auc[2] > 0.9
    assert auc[1] > auc[2] - 0.02  # the default takes the inputs that see
    assert auc[0] < auc[2] - 0.1
    a = massive_queries(20)
    solution = standardized.solve(a)
    assert solution.reached is not None
    assert bool(solution.reached.all())
