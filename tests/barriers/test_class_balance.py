"""Class sizes do not move h = 0."""

import pytest
import torch

from odesteer import ODESteer
from odesteer.barriers import (
    Barrier,
    Centred,
    HomogeneousBarrier,
    LinearBarrier,
    LogisticProbeBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    RandomFourierBarrier,
    Raw,
    StandardizedSphere,
    TensorSketchBarrier,
    ValueBarrier,
)
from odesteer.barriers.logistic import class_weights, fit_constant, fit_dual, fit_primal

WIDTH = 10
BARRIERS: dict[str, Barrier] = {
    "linear": LinearBarrier(folds=0),
    "linear-standardized": LinearBarrier(10.0, StandardizedSphere(), folds=0),
    "linear-coordinatewise": LinearBarrier(10.0, StandardizedSphere(True), folds=0),
    "polynomial": PolynomialBarrier(folds=0),
    "polynomial-centred": PolynomialBarrier(C=10.0, inputs=Centred(), folds=0),
    "polynomial-landmarks": PolynomialBarrier(max_exact=10, n_landmarks=64, folds=0),
    "sketch": TensorSketchBarrier(n_components=200, folds=0),
    "fourier": RandomFourierBarrier(100, folds=0),
    "probe": LogisticProbeBarrier(folds=0),
    "homogeneous": HomogeneousBarrier(folds=0),
    "neural": NeuralBarrier((8,), folds=0, max_epochs=60),
    "value": ValueBarrier((8,), folds=0, keep_best=True),
}
every_barrier = pytest.mark.parametrize("name", list(BARRIERS))


def drawn(n: int, sign: int, seed: int) -> torch.Tensor:
    """Overlapping classes: shifted by ±.5 along each of four coordinates, about a common centre."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    a[:, :4] += 0.5 * sign
    return a + torch.linspace(1, 3, WIDTH, dtype=torch.float64)


def errors(barrier: Barrier) -> tuple[float, float]:
    """The fractions of negatives above 0 and of positives below, on new examples."""
    positive, negative = drawn(4000, 1, 98), drawn(4000, -1, 99)
    return (
        float((barrier.value(negative) > 0).double().mean()),
        float((barrier.value(positive) < 0).double().mean()),
    )


@every_barrier
@pytest.mark.parametrize(("n_positive", "n_negative"), [(50, 950), (950, 50)])
def test_the_boundary_stays_where_it_is_when_a_class_is_subsampled(name, n_positive, n_negative):
    whole, part = BARRIERS[name].clone(), BARRIERS[name].clone()
    whole.fit(drawn(950, 1, 1), drawn(950, -1, 2))
    found = []
    for seed in range(3):
        part.fit(drawn(n_positive, 1, 3 + seed), drawn(n_negative, -1, 13 + seed))
        found.append(errors(part))
    above, below = torch.tensor(found).mean(dim=0).tolist()
    expected = errors(whole)
    # What remains is that fewer examples tell less, alike for both classes.
    noise = 0.15 if name in ("neural", "value") else 0.1
    assert abs((above - below) - (expected[0] - expected[1])) < noise
    assert max(above, below) < max(expected) + noise


@pytest.mark.parametrize("name", ["linear", "polynomial", "sketch"])
def test_copies_of_the_examples_of_a_class_change_nothing(name):
    """But the regularisation, which counts examples: C times as many."""
    positive, negative = drawn(40, 1, 1), drawn(60, -1, 2)
    parameters = {"C": 2.0}
    once = BARRIERS[name].with_params(**parameters).fit(positive, negative)
    parameters["C"] *= (40 + 60) / (3 * 40 + 60)
    thrice = BARRIERS[name].with_params(**parameters).fit(positive.repeat(3, 1), negative)
    a = drawn(20, 1, 3)
    torch.testing.assert_close(thrice.value(a), once.value(a), rtol=1e-4, atol=1e-5)


def test_the_unweighted_fit_with_a_prior_slides_to_the_majority():
    """Why the classes are weighted: regularisation keeps part of the prior in the logit."""
    data = drawn(50, 1, 3), drawn(950, -1, 13)
    published = TensorSketchBarrier(n_components=200, folds=0, class_weight=None).fit(*data)
    above, below = errors(published)
    assert above > below + 0.3
    for made in (ODESteer.paper(), ODESteer.paper().barrier):
        assert "class_weight=None" in repr(made)


def test_equal_classes_are_fitted_to_the_bit_as_without_weights():
    assert class_weights(torch.tensor([1.0, 0, 0, 1])) is None
    x = torch.cat([drawn(30, 1, 1), drawn(30, -1, 2)])
    y = torch.arange(60).lt(30).double()
    for fit in (
        lambda b: fit_primal(x, y, 1.0, balanced=b),
        lambda b: fit_dual(x @ x.T, y, 1.0, balanced=b),
    ):
        (plain, b), (balanced, c) = fit(False), fit(True)
        assert torch.equal(plain, balanced)
        assert b == c


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_weighted_fits_agree_with_scikit_learn(C):
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([drawn(15, 1, 1), drawn(80, -1, 2)]) - 2
    y = torch.arange(95).lt(15).double()
    model = LogisticRegression(C=C, class_weight="balanced", tol=1e-10, max_iter=10_000)
    model.fit(x.numpy(), y.numpy())
    expected = torch.from_numpy(model.coef_[0])
    weight, b = fit_primal(x, y, C, balanced=True)
    alpha, dual_b = fit_dual(x @ x.T, y, C, balanced=True)
    for found, constant in ((weight, b), (alpha @ x, dual_b)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert constant == pytest.approx(model.intercept_[0], abs=1e-4)


def test_the_best_constant():
    f = torch.tensor([3.0, 5.0, 0.0, 1.0, 2.0]).double()
    y = torch.tensor([1.0, 1, 0, 0, 0]).double()
    b = fit_constant(f, y)
    p = torch.sigmoid(f + b)
    assert float(p[:2].mean() + p[2:].mean()) == pytest.approx(1, abs=1e-12)


def test_centres_are_in_the_middle_of_the_classes():
    positive, negative = drawn(20, 1, 1), drawn(300, -1, 2)
    middle = (positive.mean(dim=0) + negative.mean(dim=0)) / 2
    inputs = LinearBarrier(folds=0).fit(positive, negative).inputs
    torch.testing.assert_close(inputs.mean_, middle)
    x = inputs(positive).square().sum(dim=1).mean(), inputs(negative).square().sum(dim=1).mean()
    assert float(sum(x)) == pytest.approx(2)
    assert LinearBarrier(inputs=Raw(), folds=0).fit(positive, negative).inputs.is_fitted
