"""h is in nats on new examples, however strongly its classifier is regularised."""

import pytest
import torch

from odesteer import ODESteer
from odesteer.barriers import (
    Barrier,
    Centred,
    HomogeneousBarrier,
    LinearBarrier,
    LinearDiscriminantBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    MinimumBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    ProductBarrier,
    QuadraticDiscriminantBarrier,
    RandomFourierBarrier,
    Raw,
    StandardizedSphere,
    TensorSketchBarrier,
)
from odesteer.barriers.held_out import recalibration_slope

WIDTH = 12
BARRIERS: dict[str, Barrier] = {
    "default": PolynomialBarrier(),
    "polynomial-sharp": PolynomialBarrier(C=1e4),
    "polynomial-cubic": PolynomialBarrier(3, inputs=Centred()),
    "polynomial-landmarks": PolynomialBarrier(max_exact=10, n_landmarks=64),
    "linear-shrunk": LinearBarrier(1e-4),
    "linear": LinearBarrier(),
    "linear-standardized": LinearBarrier(10.0, StandardizedSphere()),
    "probe": LogisticProbeBarrier(),
    "homogeneous": HomogeneousBarrier(0.1, inputs=Centred()),
    "sketch": TensorSketchBarrier(n_components=300),
    "sketch-cubic": TensorSketchBarrier(3, n_components=300, inputs=Centred()),
    "fourier": RandomFourierBarrier(100),
    "neural": NeuralBarrier((8,), max_epochs=40),
    "linear-discriminant": LinearDiscriminantBarrier(),
    "quadratic-discriminant": QuadraticDiscriminantBarrier(),
}


def drawn(n: int, seed: int, shift: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes whose directions are close together, as in language models."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, n, WIDTH, generator=generator, dtype=torch.float64)
    a[0, :, :4] += shift
    a[1, :, :4] -= shift
    return a[0] + 10, a[1] + 10


def slope_on_new_examples(barrier: Barrier) -> float:
    """The coefficient of a logistic regression of labels on h."""
    from sklearn.linear_model import LogisticRegression

    positive, negative = drawn(3000, 77)
    h = torch.cat([barrier.value(positive), barrier.value(negative)])[:, None].double()
    unit = float(h.std())
    y = torch.arange(6000) < 3000
    return float(LogisticRegression(C=1e6).fit((h / unit).numpy(), y.numpy()).coef_[0, 0]) / unit


@pytest.mark.parametrize("name", list(BARRIERS))
def test_the_recalibration_slope_is_one(name):
    """Up to what fits to all of 400 examples are better than the fits of the folds.

    Without calibration it is about 60 for the default, 1,300 for the most shrunk barrier.
    """
    fits = [BARRIERS[name].clone().fit(*drawn(200, seed)) for seed in (5, 6, 7)]
    mean = sum(map(slope_on_new_examples, fits)) / 3
    assert mean == pytest.approx(1, abs=0.35)


def test_without_folds_there_is_nothing_to_calibrate_by():
    shrunk = PolynomialBarrier(folds=0).fit(*drawn(200, 5))
    assert shrunk.calibration_ == 1
    assert slope_on_new_examples(shrunk) > 8


@pytest.mark.parametrize("name", ["default", "linear-shrunk", "neural", "sketch-cubic", "fourier"])
def test_levels_and_flows_are_those_of_the_uncalibrated_barrier(name):
    data = drawn(100, 5)
    fitted = BARRIERS[name].clone().fit(*data)
    plain = BARRIERS[name].with_params(folds=0).fit(*data)
    a, factor = drawn(10, 6)[1], fitted.calibration_
    assert factor != 1
    torch.testing.assert_close(fitted.value(a), factor * plain.value(a))
    torch.testing.assert_close(fitted.gradient(a), factor * plain.gradient(a))
    # Levels count in held-out quantiles of the same unit, and the boundary is where it was.
    assert fitted.upper_ == pytest.approx(float(fitted.value(data[0]).quantile(0.9)), rel=0.6)
    states = [
        ODESteer(barrier.clone()).fit(*data).steer(a, level=0.0)
        for barrier in (BARRIERS[name], BARRIERS[name].with_params(folds=0))
    ]
    torch.testing.assert_close(*states, atol=1e-3, rtol=0)


def test_parts_of_combined_barriers_count_in_the_same_unit():
    """Two barriers that know the same, one of them shrunk a thousandfold."""
    data = drawn(200, 5)
    parts = (LinearBarrier(1e-4), LinearBarrier(1.0))
    product, minimum = (kind(parts).fit(*data) for kind in (ProductBarrier, MinimumBarrier))
    for combined in (product, minimum):
        first, second = (part.value(data[0]) for part in combined.barriers)
        assert float(first.std() / second.std()) == pytest.approx(1, rel=0.3)
        assert combined.calibration_ == 1
    h = product.value(data[0])
    assert product.upper_ == pytest.approx(float(h.quantile(0.9)), rel=0.3)
    assert sum(part.upper_ for part in product.barriers) == pytest.approx(product.upper_, rel=0.2)


def test_the_paper_s_form_and_projections_keep_their_scale():
    data = drawn(100, 5)
    assert ODESteer.paper().fit(*data).barrier.calibration_ == 1
    assert MeanDifferenceBarrier(Raw()).fit(*data).calibration_ == 1


def test_the_slope_of_given_values():
    generator = torch.Generator().manual_seed(1)
    h = 3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    y = (torch.rand(20_000, generator=generator) < torch.sigmoid(h)).double()
    for scale in (1e-6, 1.0, 1e6):
        assert recalibration_slope(h / scale, y) == pytest.approx(scale, rel=0.06)
    assert recalibration_slope(-h, y) == 1  # values that say the contrary
    assert recalibration_slope(torch.zeros(20_000), y) == 1
    separated = torch.tensor([-2.0, -1, 1, 2])
    assert 0 < recalibration_slope(separated, torch.tensor([0.0, 0, 1, 1])) < 5
