"""Units of the barrier: nats without the class frequencies, quantiles, levels, held-out figures."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from barrier_cases import BARRIERS, contrast, fitted, queries
from odesteer.barriers import Centred, LinearBarrier, MeanDifferenceBarrier, PolynomialBarrier
from odesteer.barriers.held_out import group_folds, held_out_quality
from odesteer.errors import InvalidInputError, NotFittedError

CLASSIFIERS = [name for name, barrier in BARRIERS.items() if "C" in barrier.parameter_names()]


def test_threshold_is_piecewise_linear_in_the_quantiles():
    barrier = fitted("polynomial-2")
    positive, negative = contrast()
    assert barrier.upper_ == pytest.approx(float(barrier.value(positive).quantile(0.9)))
    assert barrier.lower_ == pytest.approx(float(barrier.value(negative).quantile(0.1)))
    assert barrier.threshold(0) == 0
    assert barrier.threshold(1.0) == barrier.upper_
    assert barrier.threshold(-1.0) == barrier.lower_
    assert barrier.threshold(2.5) == 2.5 * barrier.upper_
    assert barrier.threshold(-0.5) == 0.5 * barrier.lower_ < 0
    levels = torch.tensor([[-1.0, 0.0, 1.5]], dtype=torch.float64)
    expected = [[barrier.threshold(level) for level in levels[0].tolist()]]
    assert barrier.threshold(levels).tolist() == expected
    assert barrier.threshold(levels[:, :0]).shape == (1, 0)


def test_levels_of_a_barrier_that_does_not_tell_the_classes_apart():
    positive, negative = contrast()
    backwards = MeanDifferenceBarrier(folds=0).fit(positive, negative)
    backwards.upper_, backwards.lower_ = -0.5, 0.25
    assert backwards.threshold(0.0) == 0
    with pytest.raises(InvalidInputError, match=r"positive examples have h below -0\.5"):
        backwards.threshold(1.0)
    with pytest.raises(InvalidInputError, match=r"negative examples have h above 0\.25"):
        backwards.threshold(torch.tensor([-0.5, 0.0]))


def test_levels_need_a_fit():
    with pytest.raises(NotFittedError):
        LinearBarrier().threshold(1.0)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_class_frequencies_shift_the_logit_and_not_the_ratio(name):
    """Each negative three times over: the logit falls by about log 3, h stays about the same."""
    positive, negative = contrast(60)
    plain = BARRIERS[name].clone().with_params(C=0.05).fit(positive, negative)
    many = plain.clone().fit(positive, negative.repeat(3, 1))
    a = queries(30)
    shift = float((many.value(a) - plain.value(a)).mean())
    assert abs(shift) < math.log(3) / 2


def test_a_logit_without_signal_is_the_prior():
    """With no regularised weight the logit is log(n₊/n₋), so h is zero."""
    positive, negative = contrast(60)
    barrier = LinearBarrier(C=1e-9, folds=0).fit(positive, negative[:20])
    assert float(barrier.value(queries()).abs().max()) < 1e-5


def test_ratio_of_two_gaussians():
    """h of an ample sample is the true log-density ratio, whatever the class frequencies."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
    positive = torch.randn(4000, 3, generator=generator, dtype=torch.float64) + mean
    negative = torch.randn(1000, 3, generator=generator, dtype=torch.float64) - mean
    barrier = LinearBarrier(C=100.0, folds=0).fit(positive, negative)
    a = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    assert float((barrier.value(a) - 2 * a @ mean).abs().max()) < 0.35


def test_quantiles_and_figures_are_of_held_out_values():
    positive, negative = contrast(30)
    barrier = LinearBarrier(C=1e4, inputs=Centred(), folds=4, seed=3).fit(positive, negative[:20])
    y = np.r_[np.ones(30), np.zeros(20)]
    values = np.zeros(50)
    examples = torch.cat([positive, negative[:20]])
    for mask in group_folds(torch.arange(50), torch.from_numpy(y), 4, seed=3):
        rest = ~mask
        part = LinearBarrier(C=1e4, folds=0).fit(positive[rest[:30]], negative[:20][rest[30:]])
        values[mask.numpy()] = part.value(examples[mask]).numpy()
    values *= barrier.calibration_
    assert barrier.held_out_["auc"] == pytest.approx(roc_auc_score(y, values))
    assert barrier.upper_ == pytest.approx(np.quantile(values[:30], 0.9))
    assert barrier.lower_ == pytest.approx(np.quantile(values[30:], 0.1))
    balanced = np.where(y == 1, 1 / 30, 1 / 20)
    expected = log_loss(y, 1 / (1 + np.exp(-values)), sample_weight=balanced)
    assert barrier.held_out_["log_loss"] == pytest.approx(expected)
    # Training examples look better than held-out ones.
    rosy = LinearBarrier(C=1e4, folds=0).fit(positive, negative[:20])
    assert rosy.held_out_ is None
    assert rosy.upper_ * barrier.calibration_ > barrier.upper_


def test_quadratic_barriers_report_the_same_held_out_figures_by_their_own_route():
    """The kernel machine reuses one Gram matrix; other barriers are refitted for every fold."""
    data = contrast(30)
    fast = PolynomialBarrier(folds=3, rank_tolerance=0.0).fit(*data)
    slow = PolynomialBarrier(folds=3, rank_tolerance=0.0)
    slow.width_ = fast.width_
    values, rated = slow._held_out_values(check(data))
    assert bool(rated.all())
    figures = held_out_quality(fast.calibration_ * values, check(data).labels)
    assert fast.held_out_ == pytest.approx(figures, rel=1e-6)


def check(data):
    from odesteer.barriers import check_contrast

    return check_contrast(*data)


def test_calibration_error_of_known_values():
    """Probability .75 for everything, half of it right: off by a quarter."""
    h = torch.full((40,), math.log(3), dtype=torch.float64)
    y = (torch.arange(40) < 20).double()
    figures = held_out_quality(h, y)
    assert figures["auc"] == 0.5
    assert figures["calibration_error"] == pytest.approx(0.25)
    assert figures["log_loss"] == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_the_smallest_sets_have_no_folds():
    positive, negative = contrast(2)
    barrier = LinearBarrier(folds=5).fit(positive, negative)
    assert barrier.held_out_ is None
    assert barrier.upper_ > 0 > barrier.lower_
