"""Agreement with the published implementation, given its hash tables and coefficients."""

import pytest
import torch
from reference_values import DEGREE_2, DEGREE_3

from odesteer.barriers import Raw, TensorSketchBarrier, UnitSphere
from odesteer.barriers.composed import FixedBarrier
from odesteer.barriers.random_features import RandomFourierFunction
from odesteer.flows import Euler, GradientField, Midpoint, Solver, ThreeEighths, solve
from published_runs import every_published_run

SOLVERS: dict[str, Solver] = {"euler10": Euler(), "midpoint10": Midpoint(), "rk410": ThreeEighths()}


def literal(values):
    """Recorded numbers as tensors; those of activations as `[2, d]`."""
    signs = [[1 if sign == "+" else -1 for sign in row] for row in values["signs"].split()]
    tables = {"signs": torch.tensor(signs)}
    hashes = [int(number) for number in values["hashes"].split()]
    tables["hashes"] = torch.tensor(hashes).reshape(tables["signs"].shape)
    for name, text in values.items():
        if name not in tables:
            numbers = torch.tensor([float(number) for number in text.split()])
            single = name in ("coefficients", "intercept", "log_density_ratio")
            tables[name] = numbers if single else numbers.reshape(2, -1)
    return tables


def published_barrier(hashes, signs, coefficients, intercept):
    return TensorSketchBarrier.from_tables(
        hashes, signs, coefficients, float(intercept), gamma=0.1, c0=1.0, class_counts=(200, 200)
    )


def displacement_error(ours, theirs, start):
    """The largest relative error of a row's displacement."""
    return float(((ours - theirs).norm(dim=-1) / (theirs - start).norm(dim=-1)).max())


def recorded_barrier(recorded):
    tables = (recorded[f"poly.{name}"] for name in ("indexHash", "bitHash", "coef", "intercept"))
    return published_barrier(*tables)


@every_published_run
def test_recorded_ratio_and_field(recorded):
    query, barrier = recorded["query"], recorded_barrier(recorded)
    torch.testing.assert_close(
        barrier.value(query), recorded["poly.log_density_ratio"], rtol=1e-5, atol=3e-6
    )
    field = GradientField(barrier)(query)
    assert float((field - recorded["poly.unit_field"]).norm(dim=1).max()) < 1e-5


@every_published_run
@pytest.mark.parametrize("time", ["0.5", "2", "5"])
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_recorded_flows(recorded, solver, time):
    query, field = recorded["query"], GradientField(recorded_barrier(recorded))
    ours = solve(field, query, float(time), SOLVERS[solver]).state
    theirs = recorded[f"poly.{solver}.T{time}"]
    assert float((ours - theirs).norm() / (theirs - query).norm()) < 1e-5
    assert displacement_error(ours, theirs, query) < 1e-5


@every_published_run
def test_recorded_single_step(recorded):
    query, theirs = recorded["query"], recorded["poly.step.T2"]
    ours = solve(GradientField(recorded_barrier(recorded)), query, 2.0, Euler(1)).state
    assert displacement_error(ours, theirs, query) < 1e-5


@every_published_run
def test_recorded_random_fourier_features(recorded):
    tables = (recorded[f"rff.{name}"] for name in ("W", "b", "coef"))
    function = RandomFourierFunction.of(*tables, float(recorded["rff.intercept"]))
    query = recorded["query"]
    # The published ablation looks at the activation itself, not at its direction.
    barrier = FixedBarrier.of(Raw(), function)
    torch.testing.assert_close(
        barrier.value(query), recorded["rff.log_density_ratio"], rtol=1e-5, atol=3e-6
    )
    assert float((GradientField(barrier)(query) - recorded["rff.unit_field"]).abs().max()) < 1e-5
    ours = solve(GradientField(barrier), query, 2.0, Euler()).state
    assert displacement_error(ours, recorded["rff.euler10.T2"], query) < 1e-5


@pytest.mark.parametrize("values", [DEGREE_2, DEGREE_3], ids=["degree 2", "degree 3"])
def test_two_recorded_activations(values):
    recorded = literal(values)
    names = ("hashes", "signs", "coefficients", "intercept")
    barrier = published_barrier(*(recorded[name] for name in names))
    query, field = recorded["query"], GradientField(barrier)
    torch.testing.assert_close(
        barrier.value(query), recorded["log_density_ratio"], rtol=1e-5, atol=3e-6
    )
    if "unit_field" in recorded:
        assert float((field(query) - recorded["unit_field"]).norm(dim=1).max()) < 1e-5
    for name, solver in SOLVERS.items():
        for time in (2.0, 5.0):
            if f"{name}.T{time:g}" in recorded:
                theirs = recorded[f"{name}.T{time:g}"]
                ours = solve(field, query, time, solver).state
                assert displacement_error(ours, theirs, query) < 1e-5


def test_a_barrier_from_tables_is_on_the_unit_sphere_and_has_no_levels():
    recorded = literal(DEGREE_2)
    names = ("hashes", "signs", "coefficients", "intercept")
    barrier = published_barrier(*(recorded[name] for name in names))
    assert isinstance(barrier.inputs, UnitSphere)
    query = recorded["query"]
    torch.testing.assert_close(barrier.value(3 * query), barrier.value(query))
    with pytest.raises(ValueError, match="without quantiles"):
        barrier.threshold(1.0)
