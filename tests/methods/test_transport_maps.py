"""MiMiC and Linear-AcT: what they map onto what."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import steering

from barrier_cases import WIDTH, contrast, queries
from odesteer.barriers import LinearBarrier, LinearDiscriminantBarrier
from odesteer.barriers.gaussian import Gaussian, QuadraticDiscriminantBarrier
from odesteer.barriers.inputs import Centred, Raw
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, LinearAcT, MiMiC
from odesteer.methods.linear_act import matched_slopes
from odesteer.methods.mimic import transport
from published_runs import every_published_run


def covariance(a):
    return torch.cov(a.T, correction=0)


@every_published_run
def test_published_mimic(recorded):
    """Covariance regularisation 0.01, gated by a probe on the activations as they are."""
    query, theirs = recorded["query"], recorded["mimic"]
    method = MiMiC(shrinkage=0.0, ridge=1e-2).fit(recorded["pos"], recorded["neg"])
    ours = method.steer(query)
    still = (theirs == query).all(dim=1)
    assert 0 < int(still.sum()) < len(query)
    assert torch.equal(ours[still], query[still])
    distance = (theirs - query).norm(dim=1)[~still]
    assert float(((ours - theirs)[~still].norm(dim=1) / distance).max()) < 1e-5


@every_published_run
def test_published_linear_transport(recorded):
    query, theirs = recorded["query"], recorded["linact"]
    ours = LinearAcT().fit(recorded["pos"], recorded["neg"]).steer(query)
    distance = (theirs - query).norm(dim=1)
    assert float(((ours - theirs).norm(dim=1) / distance).max()) < 1e-5


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(20, 50), st.integers(20, 50))
def test_mimic_maps_mean_and_covariance_onto_those_of_the_other_class(seed, n, m):
    positive, negative = contrast(n, seed=seed)[0], contrast(m, seed=seed + 1)[1]
    method = MiMiC(shrinkage=0.0, gate=None, folds=0).fit(positive, negative)
    for share, start, goal in ((1.0, negative, positive), (-1.0, positive, negative)):
        moved = method.steer(start, interpolation=share)
        torch.testing.assert_close(moved.mean(dim=0), goal.mean(dim=0))
        torch.testing.assert_close(covariance(moved), covariance(goal))
        # The one way undoes the other.
        torch.testing.assert_close(method.steer(moved, interpolation=-share), start)
    half = method.steer(negative, interpolation=0.5)
    torch.testing.assert_close(half, (negative + method.steer(negative)) / 2)


def test_transport_by_its_formula():
    positive, negative = (Gaussian.of(side, 0.1, 0.2) for side in contrast())
    axes, stretch = transport(negative, positive)
    values, vectors = torch.linalg.eigh(negative.covariance)
    root, inverse = (vectors * values**p @ vectors.T for p in (0.5, -0.5))
    values, vectors = torch.linalg.eigh(root @ positive.covariance @ root)
    expected = inverse @ (vectors * values.sqrt() @ vectors.T) @ inverse
    torch.testing.assert_close(axes * stretch @ axes.T, expected)


def test_only_the_side_that_is_steered_away_from_moves():
    method, a = steering("mimic"), queries(30)
    probe = LinearBarrier(inputs=Raw(), folds=0).fit(*contrast()).value(a)
    for share in (0.7, -0.7):
        moved = (method.steer(a, interpolation=share) != a).any(dim=1)
        assert torch.equal(moved, probe * share < 0)
        assert 0 < int(moved.sum()) < len(a)
    assert bool((steering("mimic-everywhere").steer(a) != a).any(dim=1).all())
    # What the map took to the positive side stays there.
    once = method.steer(contrast()[1])
    past = method.gate.value(once) > 0
    assert bool(past.any())
    assert torch.equal(method.steer(once)[past], once[past])


@pytest.mark.parametrize("level", [1.3, 0.4, -0.6, -1.2])
def test_a_level_is_the_smallest_share_that_reaches_it(level):
    method, a = MiMiC(folds=0).fit(*contrast()), queries(60)
    sign = math.copysign(1.0, level)
    tau = method.barrier.threshold(level)
    everywhere = method.with_params(gate=None).fit(*contrast())
    whole = everywhere.steer(a, interpolation=sign)
    solution = method.solve(a, Amount("level", level))
    shares = (solution.time / (whole - a).norm(dim=1)).clamp(0, 2)
    torch.testing.assert_close(solution.state, a + shares[:, None] * (whole - a))
    there = sign * (method.barrier.value(a) - tau) >= 0
    assert torch.equal(solution.state[there], a[there])
    # Along the way before it, no share does; where it is not reached, none up to the cap does.
    for part in np.linspace(0, 0.999, 40):
        h = method.barrier.value(a + part * (solution.state - a))
        assert bool((sign * (h - tau) < 0)[~there].all())
    best = torch.full_like(shares, -math.inf)
    for share in np.linspace(0, 2, 201):
        best = torch.maximum(best, sign * method.barrier.value(a + share * (whole - a)))
    assert bool((best - sign * tau < 1e-9)[~solution.reached].all())
    end = sign * method.barrier.value(solution.state)
    assert bool((end > best - 1e-3 * best.abs())[~solution.reached].all())
    assert int((solution.reached & ~there).sum()) > 10
    again, reached = method.steer(solution.state, level=level), solution.reached
    torch.testing.assert_close(again[reached], solution.state[reached], rtol=1e-9, atol=1e-9)


def test_a_level_of_mimic_has_a_cap():
    short = MiMiC(max_interpolation=0.05, gate=None).fit(*contrast())
    a = queries(40)
    solution = short.solve(a, Amount("level", 1.5))
    assert not bool(solution.reached.all())
    longest = 0.05 * (short.steer(a, interpolation=1.0) - a).norm(dim=1)
    assert bool((solution.time <= longest * (1 + 1e-12)).all())
    for cap in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidInputError, match="max_interpolation must be a positive"):
            MiMiC(max_interpolation=cap).fit(*contrast())


def test_fewer_examples_than_dimensions():
    """Ledoit and Wolf's covariance is regular; the plain one is not, and that is said."""
    positive, negative = contrast(6)
    method = MiMiC().fit(positive, negative[:5])
    assert bool(torch.isfinite(method.steer(queries())).all())
    MiMiC(folds=0).fit(positive[:2], negative[:2])
    with pytest.raises(InvalidInputError, match=r"6 examples of width 12 is singular.*ridge=0"):
        MiMiC(shrinkage=0.0).fit(positive, negative)
    for bad in ({"ridge": -1.0}, {"ridge": math.nan}, {"shrinkage": 1.5}):
        with pytest.raises(InvalidInputError, match=next(iter(bad))):
            MiMiC(**bad).fit(positive, negative)


def test_mimic_far_from_the_origin_in_float32():
    """A common mean a hundred times the spread, as the first coordinates of language models."""
    far = 100 * torch.ones(WIDTH, dtype=torch.float64)
    data, a = [x + far for x in contrast()], queries(20) + far
    method = MiMiC(gate=None).fit(*data)
    single = MiMiC(gate=None).fit(*(x.float() for x in data))
    for amount in (Amount("interpolation", 1.0), Amount("level", 0.5)):
        exact = method.solve(a, amount)
        ours = single.solve(a.float(), amount)
        error = (ours.state.double() - exact.state).norm(dim=1)
        assert float(error.max()) < 1e-3 * float(exact.time.max())


# --- the barrier of MiMiC


def test_the_quadratic_discriminant_is_the_ratio_of_two_normal_densities():
    positive, negative = contrast()
    barrier = QuadraticDiscriminantBarrier(0.2, 0.0, Raw(), folds=0).fit(positive, negative)
    a, h = queries(), torch.zeros(7, dtype=torch.float64)
    for sign, side in ((1, positive), (-1, negative)):
        own = covariance(side)
        own = 0.8 * own + 0.2 * own.diagonal().mean() * torch.eye(WIDTH, dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(side.mean(dim=0), own)
        h = h + sign * normal.log_prob(a)
    torch.testing.assert_close(barrier.value(a), h)
    # The same in inputs of another unit and origin.
    centred = QuadraticDiscriminantBarrier(0.2, 0.0, folds=0).fit(positive, negative)
    torch.testing.assert_close(centred.value(a), h)


def test_ridge_counts_in_squared_activation_units():
    method = MiMiC(shrinkage=0.0, ridge=0.3, folds=0).fit(*contrast())
    raw = QuadraticDiscriminantBarrier(0.0, 0.3, Raw(), folds=0).fit(*contrast())
    torch.testing.assert_close(method.barrier.value(queries()), raw.value(queries()))


def test_held_out_figures_of_the_quadratic_discriminant():
    """By triangular solves, the same as by fits of the folds."""
    data = contrast(30)
    barrier = QuadraticDiscriminantBarrier(inputs=Centred(), folds=3, seed=2).fit(*data)
    slow = LinearDiscriminantBarrier.__mro__[1]._held_out_values

    class Slow(QuadraticDiscriminantBarrier):
        _held_out_values = slow

    expected = Slow(inputs=Centred(), folds=3, seed=2).fit(*data)
    assert barrier.upper_ == pytest.approx(expected.upper_, rel=1e-9)
    assert barrier.lower_ == pytest.approx(expected.lower_, rel=1e-9)
    assert barrier.held_out_ == pytest.approx(expected.held_out_)
    inside = QuadraticDiscriminantBarrier(folds=0).fit(*data)
    assert inside.held_out_ is None
    assert inside.upper_ > barrier.upper_


# --- Linear-AcT


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 30), st.integers(1, 4))
def test_linear_transport_is_exact_for_affine_data(seed, n, copies):
    """Also when one set is some copies of the other, and in any order."""
    generator = torch.Generator().manual_seed(seed)
    negative = contrast(n, seed=seed)[1]
    slope = torch.rand(WIDTH, generator=generator, dtype=torch.float64) * 2 + 0.1
    shift = torch.randn(WIDTH, generator=generator, dtype=torch.float64) * 5
    positive = (negative * slope + shift).repeat(copies, 1)
    positive = positive[torch.randperm(len(positive), generator=generator)]
    method, a = LinearAcT().fit(positive, negative), queries()
    torch.testing.assert_close(method.slope_, slope)
    torch.testing.assert_close(method.steer(a), a * slope + shift)
    torch.testing.assert_close(method.steer(a, interpolation=-1.0), (a - shift) / slope)
    for share in (0.25, 1.5):
        expected = a + share * (a * slope + shift - a)
        torch.testing.assert_close(method.steer(a, interpolation=share), expected)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 4), (5, 12), (9, 2)])
def test_unequal_sets_are_matched_by_quantile(n, m):
    """As if each value were there as many times as makes the sets equal."""
    positive, negative = contrast(n)[0], contrast(m)[1]
    high = positive.repeat_interleave(m, dim=0).sort(dim=0).values
    low = negative.repeat_interleave(n, dim=0).sort(dim=0).values
    for ours, x, y in zip(
        matched_slopes(negative, positive), (low, high), (high, low), strict=True
    ):
        design = torch.stack([x, torch.ones_like(x)], dim=-1).transpose(0, 1)
        expected = torch.linalg.lstsq(design, y.T[..., None]).solution[:, 0, 0]
        torch.testing.assert_close(ours, expected)


def test_the_mean_of_the_negatives_is_mapped_onto_that_of_the_positives():
    positive, negative = contrast(23)[0], contrast(31)[1]
    method = LinearAcT().fit(positive, negative)
    torch.testing.assert_close(method.steer(negative).mean(dim=0), positive.mean(dim=0))
    back = method.steer(positive, interpolation=-1.0)
    torch.testing.assert_close(back.mean(dim=0), negative.mean(dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_coordinates(dtype):
    positive, negative = contrast(dtype=dtype)
    negative[:, 0], positive[:, 0] = 0.1, 3.7  # shifted, both ways
    negative[:, 1] = 1 / 3  # shifted onto the mean, and back onto the constant
    positive[:, 2] = -2.0
    method, a = LinearAcT().fit(positive, negative), queries(dtype=dtype)
    there, back = method.steer(a), method.steer(a, interpolation=-1.0)
    torch.testing.assert_close(there[:, 0], a[:, 0] + 3.6)
    torch.testing.assert_close(back[:, 0], a[:, 0] - 3.6)
    torch.testing.assert_close(there[:, 1], a[:, 1] + positive[:, 1].mean() - negative[0, 1])
    torch.testing.assert_close(back[:, 1], torch.full_like(a[:, 1], 1 / 3))
    torch.testing.assert_close(there[:, 2], torch.full_like(a[:, 2], -2.0))
    torch.testing.assert_close(back[:, 2], a[:, 2] + negative[:, 2].mean() + 2)


def test_linear_transport_has_neither_barrier_nor_field():
    for method in (LinearAcT(), steering("linear-act")):
        assert not hasattr(method, "barrier")
        assert not hasattr(method, "field")
    assert not hasattr(steering("mimic"), "field")
    with pytest.raises(InvalidInputError, match=r"LinearAcT has no 'T'.*takes interpolation"):
        steering("linear-act").steer(queries(), T=1.0)


def test_wide_activations_are_fitted_in_blocks():
    positive, negative = contrast(9, width=300)[0], contrast(11, width=300)[1]
    slopes = LinearAcT().fit(positive, negative).slope_
    torch.testing.assert_close(slopes, matched_slopes(negative, positive)[0])
