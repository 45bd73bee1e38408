"""Pairs of two sets: by group, in order, and nobody left out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import contrast
from odesteer.barriers import (
    LinearBarrier,
    MeanDifferenceBarrier,
    PolynomialBarrier,
    PrincipalDifferenceBarrier,
    check_contrast,
    pair,
)
from odesteer.errors import InvalidInputError

labels = st.lists(st.integers(0, 4), min_size=2, max_size=12)


def numbered(n_positive, n_negative, groups=None):
    """Sets whose i-th rows begin with i, positives above 0 and negatives below."""
    positive = torch.stack([torch.arange(n_positive) + 1.0, torch.ones(n_positive)], dim=1)
    negative = -torch.stack([torch.arange(n_negative) + 1.0, torch.ones(n_negative)], dim=1)
    return check_contrast(positive, negative, groups)


@settings(deadline=None)
@given(labels, labels)
def test_by_group_nobody_is_left_out(positive, negative):
    pairs = pair(numbered(len(positive), len(negative), (positive, negative)))
    both = set(positive) & set(negative)
    for paired, alone, own in (
        (pairs.positive, pairs.alone_positive, positive),
        (pairs.negative, pairs.alone_negative, negative),
    ):
        assert sorted({*paired.tolist(), *alone.tolist()}) == list(range(len(own)))
        assert {own[i] for i in paired.tolist()} == both
        assert not {own[i] for i in alone.tolist()} & both
    for i, j in zip(pairs.positive.tolist(), pairs.negative.tolist(), strict=True):
        assert positive[i] == negative[j]
    # A group has as many pairs as its larger side, and no pair twice.
    sizes = (max(positive.count(group), negative.count(group)) for group in both)
    assert len(pairs) == sum(sizes)
    assert len(set(zip(pairs.positive.tolist(), pairs.negative.tolist(), strict=True))) == len(
        pairs
    )
    assert pairs.n_alone == len(pairs.alone_positive) + len(pairs.alone_negative)


def test_the_shorter_side_of_a_group_serves_again_in_turn():
    pairs = pair(numbered(5, 2, ("aaaaa", "aa")))
    assert pairs.positive.tolist() == [0, 1, 2, 3, 4]
    assert pairs.negative.tolist() == [0, 1, 0, 1, 0]


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(2, 9))
def test_without_groups_equal_sizes_pair_in_order(n_positive, n_negative):
    pairs = pair(numbered(n_positive, n_negative))
    if n_positive == n_negative:
        assert pairs.positive.tolist() == pairs.negative.tolist() == list(range(n_positive))
        assert pairs.n_alone == 0
    else:
        assert len(pairs) == 0
        assert pairs.n_alone == n_positive + n_negative


def test_groups_that_say_nothing_is_paired_are_believed():
    pairs = pair(numbered(3, 3, (["a", "b", "c"], ["d", "e", "f"])))
    assert len(pairs) == 0
    assert pairs.n_alone == 6


def test_the_lonely_stand_against_the_mean_of_the_other_class():
    data = numbered(3, 4, ("abc", "bxyb"))
    positive, negative = pair(data).sides(data)
    mean_positive, mean_negative = data.positive.mean(0), data.negative.mean(0)
    expected = [
        (data.positive[1], data.negative[0]),
        (data.positive[1], data.negative[3]),
        (data.positive[0], mean_negative),
        (data.positive[2], mean_negative),
        (mean_positive, data.negative[1]),
        (mean_positive, data.negative[2]),
    ]
    assert torch.equal(positive, torch.stack([one for one, _ in expected]))
    assert torch.equal(negative, torch.stack([other for _, other in expected]))


def test_groups_are_handed_on_as_they_are():
    for sizes in ((3, 3), (3, 2)):
        plain = numbered(*sizes)
        again = check_contrast(plain.positive, plain.negative, plain.group_pair)
        assert torch.equal(again.groups, plain.groups)
    first, second = numbered(3, 2, ("aab", "ba")).group_pair
    assert (first.tolist(), second.tolist()) == ([0, 0, 1], [1, 0])


def test_pairs_are_not_split_between_folds():
    """Pairs a large common shift apart: a fold that split them would see the shift as noise."""
    generator = torch.Generator().manual_seed(0)
    topic = 50 * torch.randn(40, 1, generator=generator) * torch.ones(6)
    noise = torch.randn(2, 40, 6, generator=generator)
    noise[0, :, 0] += 3 * torch.randn(40, generator=generator) + 4
    given = PrincipalDifferenceBarrier(True).fit(
        topic + noise[0], topic + noise[1], (torch.arange(40), torch.arange(40))
    )
    in_order = PrincipalDifferenceBarrier(True).fit(topic + noise[0], topic + noise[1])
    assert given.held_out_ == in_order.held_out_
    assert (given.upper_, given.lower_) == (in_order.upper_, in_order.lower_)
    assert (in_order.n_pairs_, in_order.n_alone_) == (40, 0)
    assert float(in_order.gradient(topic[0])[0]) > 0.9


@pytest.mark.parametrize("barrier", [LinearBarrier(), PolynomialBarrier(), MeanDifferenceBarrier()])
def test_equal_sets_without_groups_are_pairs_to_every_barrier(barrier):
    positive, negative = contrast()
    order = torch.arange(len(positive))
    in_order = barrier.clone().fit(positive, negative)
    given = barrier.clone().fit(positive, negative, (order, order))
    assert in_order.held_out_ == given.held_out_
    assert (in_order.upper_, in_order.lower_) == (given.upper_, given.lower_)
    each_alone = barrier.clone().fit(positive, negative, (order, order + len(order)))
    assert each_alone.held_out_ != given.held_out_


def test_equal_differences_have_no_principal_component():
    negative = contrast()[1]
    with pytest.raises(InvalidInputError, match=r"differences of all pairs are the same.*CAA"):
        PrincipalDifferenceBarrier(True, folds=0).fit(negative + 1.0, negative)
    uncentred = PrincipalDifferenceBarrier(False, folds=0).fit(negative + 1.0, negative)
    same = MeanDifferenceBarrier(folds=0).fit(negative + 1.0, negative)
    ours, theirs = uncentred.gradient(negative[0]), same.gradient(negative[0])
    torch.testing.assert_close(ours, theirs / theirs.norm())
