"""Fits that mean little say so; fits to small activations work."""

import warnings

import pytest
import torch

from barrier_cases import contrast
from odesteer import ITI, ODESteer
from odesteer.barriers import (
    HomogeneousBarrier,
    LinearBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    MinimumBarrier,
    PolynomialBarrier,
    Raw,
    check_contrast,
)
from odesteer.barriers.held_out import auc_error
from odesteer.errors import WeakSignalWarning


def noise(n=60, width=12):
    """Two sets from one distribution."""
    return torch.randn(2, n, width, generator=torch.Generator().manual_seed(4)).unbind()


@pytest.mark.parametrize(
    "barrier", [LinearBarrier(), PolynomialBarrier(), MeanDifferenceBarrier(), MinimumBarrier()]
)
def test_labels_without_signal_are_noticed(barrier):
    match = r"held-out AUC of \w+ is 0\.\d\d ± 0\.0\d, near chance.*another layer or position"
    with pytest.warns(WeakSignalWarning, match=match):
        barrier.clone().fit(*noise())
    with pytest.warns(WeakSignalWarning, match=match):
        ODESteer(barrier).fit(*noise())


def test_chance_counts_groups_and_not_rows():
    """Many tokens of few texts: what tells the texts apart tells nothing about others."""
    generator = torch.Generator().manual_seed(1)
    texts = torch.randn(2, 12, 12, generator=generator).repeat_interleave(40, dim=1)
    positive, negative = texts + 0.01 * torch.randn(2, 480, 12, generator=generator)
    positive[:, 0] += 0.8
    groups = [[f"{side}{i // 40}" for i in range(480)] for side in "+-"]
    with pytest.warns(WeakSignalWarning, match=r"0\.6\d ± 0\.1\d, near chance"):
        LinearBarrier().fit(positive, negative, groups)


def test_good_fits_and_fits_without_folds_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearBarrier().fit(*contrast())
        ODESteer().fit(*contrast())
        LinearBarrier(folds=0).fit(*noise())


def test_figures_that_cannot_be_had_are_said():
    positive, negative = contrast(2)
    with pytest.warns(WeakSignalWarning, match=r"no held-out figures: 4 examples in 2 groups"):
        barrier = LinearBarrier().fit(positive, negative)
    assert barrier.held_out_ is None


def test_pairs_of_one_prompt_are_grouped_by_row():
    positive, negative = contrast(30)
    prompt = ["Is this true?"]
    one = LinearBarrier().fit(positive, negative, (prompt * 30, prompt * 30))
    by_row = LinearBarrier().fit(positive, negative)
    assert one.held_out_ == by_row.held_out_ is not None
    unequal = check_contrast(positive, negative[:20], (prompt * 30, prompt * 20))
    assert len(unequal.groups.unique()) == 1  # nobody knows which belong together
    two = check_contrast(positive, negative, (prompt * 30, ["Other."] * 30))
    assert len(two.groups.unique()) == 2


def test_the_error_of_an_auc():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(2000, 90, generator=generator)
    h[:, :30] += 1
    aucs = (h[:, :30, None] > h[:, None, 30:]).double().mean(dim=(1, 2))
    assert auc_error(float(aucs.mean()), 30, 60) == pytest.approx(float(aucs.std()), rel=0.1)
    assert auc_error(1.0, 30, 60) == 0


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-6])
def test_probes_find_the_direction_of_small_activations(scale):
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(2, 100, 16, generator=generator) / 4  # of mean norm 1, separable
    a[0, :, 2] += 1.5
    data = [scale * side for side in a]
    for barrier in (
        LogisticProbeBarrier(),
        HomogeneousBarrier(inputs=Raw()),
        LinearBarrier(inputs=Raw()),
    ):
        barrier.fit(*data)
        gradient = torch.nn.functional.normalize(barrier.gradient(data[0][0]).double(), dim=0)
        assert float(gradient[2]) > 0.9
        assert barrier.held_out_["auc"] > 0.98
    assert float(ITI().fit(*data).direction_[2]) > 0.9
