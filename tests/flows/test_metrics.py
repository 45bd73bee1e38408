"""Steepest ascent in a metric: forward invariance, and contrastive addition as a special case."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from barrier_cases import BARRIERS, WIDTH, contrast, fitted, queries
from odesteer.barriers import LinearDiscriminantBarrier, pooled_covariance
from odesteer.errors import InvalidInputError, NotFittedError
from odesteer.flows import (
    Covariance,
    Euclidean,
    Euler,
    GradientField,
    MatrixMetric,
    ReachValue,
    metric_registry,
    solve,
)
from odesteer.methods import CAA


def semidefinite(rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(WIDTH, rank, generator=generator, dtype=torch.float64)
    return root @ root.T


METRICS = {
    "euclidean": Euclidean(),
    "covariance": Covariance(),
    "covariance, unshrunk": Covariance(shrinkage=0.0),
    "matrix": MatrixMetric(semidefinite(WIDTH)),
    "matrix of rank 2": MatrixMetric(semidefinite(2)),
}


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("barrier", list(BARRIERS))
def test_the_field_never_points_down(barrier, metric):
    """Nagumo's condition ∇h·v ≥ 0, at unit speed, on and off the boundary."""
    h, a = fitted(barrier), queries(30)
    G = METRICS[metric].clone().fit(*contrast())
    v = GradientField(h, G)(a)
    rate = (h.gradient(a) * v).sum(dim=1)
    assert float(rate.min()) > 0
    torch.testing.assert_close(v.norm(dim=1), torch.ones(30, dtype=torch.float64))


@settings(deadline=None, max_examples=30)
@given(rank=st.integers(1, WIDTH), seed=st.integers(0, 10**6), size=st.floats(1e-6, 1e6))
def test_any_semidefinite_matrix_ascends(rank, seed, size):
    h, a = fitted("polynomial-2-centred"), queries(5, seed=seed)
    metric = MatrixMetric(size * semidefinite(rank, seed)).fit(*contrast())
    v = GradientField(h, metric)(a)
    assert bool(((h.gradient(a) * v).sum(dim=1) >= 0).all())
    small = solve(GradientField(h, metric), a, 1e-5, Euler(1)).state
    assert bool((h.value(small) >= h.value(a)).all())


def test_the_identity_is_euclidean():
    h, a = fitted("polynomial-2"), queries()
    identity = MatrixMetric(torch.eye(WIDTH)).fit(*contrast())
    ours = solve(GradientField(h, identity), a, 1.0, Euler())
    torch.testing.assert_close(ours.state, solve(GradientField(h), a, 1.0, Euler()).state)


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.1, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_discriminant_in_the_covariance_metric_is_contrastive_addition(shrinkage, dtype, tolerance):
    """Σ(Σ⁻¹(μ₊ - μ₋)) = μ₊ - μ₋: CAA is a gradient flow in the covariance metric."""
    data, a = contrast(60, dtype=dtype), queries(dtype=dtype)
    barrier = LinearDiscriminantBarrier(shrinkage, folds=0).fit(*data)
    metric = Covariance(shrinkage).fit(*data)
    caa = CAA(folds=0).fit(*data)
    direction = caa.direction_ / caa.direction_.norm()
    v = GradientField(barrier, metric)(a)
    assert float((v - direction).norm(dim=1).max()) < tolerance
    # And so are its flows, with any number of steps.
    moved = solve(GradientField(barrier, metric), a, 3.0, Euler(7)).state
    torch.testing.assert_close(moved, caa.steer(a, T=3.0 / float(caa.direction_.norm())))
    # In the Euclidean metric they are not.
    if shrinkage != 1.0:
        euclidean = GradientField(barrier)(a)
        assert float((euclidean - direction).norm(dim=1).min()) > 1e-2


def test_discriminant_in_an_ill_conditioned_covariance():
    """Spread over three orders of magnitude, as in residual streams: float64 still agrees."""
    scale = torch.logspace(1.5, -1.5, WIDTH, dtype=torch.float64)
    data = [a * scale for a in contrast(60)]
    barrier = LinearDiscriminantBarrier(0.0, folds=0).fit(*data)
    direction = data[0].mean(0) - data[1].mean(0)
    v = GradientField(barrier, Covariance(0.0).fit(*data))(queries())
    assert float((v - direction / direction.norm()).norm(dim=1).max()) < 1e-5


def test_discriminant_is_the_ratio_of_two_gaussians():
    data = contrast(80)
    barrier = LinearDiscriminantBarrier(0.0, folds=0).fit(*data)
    covariance = pooled_covariance(*data, 0.0)
    a = queries()
    densities = [
        torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(a) for x in data
    ]
    torch.testing.assert_close(barrier.value(a), densities[0] - densities[1])


def test_pooled_covariance():
    positive, negative = contrast(50)
    negative = negative[:20]
    residuals = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    expected, shrinkage = ledoit_wolf(residuals.numpy(), assume_centered=True)
    ours = pooled_covariance(positive, negative, None)
    torch.testing.assert_close(ours, torch.from_numpy(expected))
    torch.testing.assert_close(pooled_covariance(positive, negative, float(shrinkage)), ours)
    plain = pooled_covariance(positive, negative, 0.0)
    torch.testing.assert_close(plain, residuals.T @ residuals / 70)
    round_one = pooled_covariance(positive, negative, 1.0)
    eye = torch.eye(WIDTH, dtype=torch.float64)
    torch.testing.assert_close(round_one, plain.diagonal().mean() * eye)
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match="shrinkage must be between 0 and 1"):
            pooled_covariance(positive, negative, bad)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.eye(3), r"shape \(3, 3\), not \(12, 12\)"),
        (torch.ones(WIDTH), r"shape \(12,\)"),
        (torch.eye(WIDTH).roll(1, 0), "not symmetric"),
        (-torch.eye(WIDTH), "positive semidefinite"),
        (torch.zeros(WIDTH, WIDTH), "positive semidefinite and not zero"),
        (torch.diag(torch.linspace(-1, 1, WIDTH)), "eigenvalues from -1 to 1"),
        (torch.full((WIDTH, WIDTH), float("nan")), "not finite"),
    ],
)
def test_matrices_that_are_no_metric(matrix, message):
    with pytest.raises(InvalidInputError, match=message):
        MatrixMetric(matrix).fit(*contrast())


@pytest.mark.parametrize("name", list(metric_registry))
def test_the_estimator_contract(name):
    cls = metric_registry.get(name)
    metric = cls(semidefinite(3)) if name == "matrix" else cls()
    if name == "covariance":
        with pytest.raises(NotFittedError):
            metric.apply(queries())
    assert metric.fit(*contrast()) is metric
    assert metric.is_fitted
    clone = metric.clone()
    assert clone.get_params().keys() == metric.get_params().keys()
    assert clone.learned() == {}
    g = queries()
    assert torch.equal(clone.fit(*contrast()).apply(g), metric.apply(g))
    single = metric.to(dtype=torch.float32)
    torch.testing.assert_close(single.apply(g), metric.apply(g), rtol=1e-5, atol=1e-5)
    assert metric.apply(g[0]).shape == (WIDTH,)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("until", [None, 0.5])
def test_gradient_modes(mode, until):
    """Fitted in any of them, on tensors that record gradients, and used in a backward pass."""
    barrier = fitted("polynomial-2")
    with mode():
        positive, negative = (states.clone().requires_grad_() for states in contrast())
        metric = Covariance().fit(positive, negative)
        field = GradientField(barrier, metric)
        solve(field, queries(), 0.5, Euler(3), until=until and ReachValue(until))
    assert not metric.matrix_.requires_grad
    assert not metric.matrix_.is_inference()
    a = queries().requires_grad_()
    tau = torch.full((len(a),), 0.5, dtype=torch.float64).requires_grad_()
    event = None if until is None else ReachValue(tau)
    end = solve(field, a, 3.0, Euler(3), until=event).state
    end.sum().backward()
    assert bool(torch.isfinite(a.grad).all())
    assert float(a.grad.abs().max()) > 0
    if until is not None:
        assert float(tau.grad.abs().max()) > 0
