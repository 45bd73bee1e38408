"""What can be fitted to, and folds that never split a group."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import BARRIERS, contrast, queries
from odesteer.barriers import LinearBarrier, PolynomialBarrier, check_contrast
from odesteer.barriers.held_out import group_folds
from odesteer.errors import InvalidInputError, OdesteerError


def with_value(a, value):
    a = a.clone()
    a[3, 2] = value
    return a


POSITIVE, NEGATIVE = contrast(10)
OWNERS = list(range(10))

BAD = {
    "no positives": ((POSITIVE[:0], NEGATIVE), "positive has 0 examples"),
    "no negatives": ((POSITIVE, NEGATIVE[:0]), "negative has 0 examples"),
    "one positive": ((POSITIVE[:1], NEGATIVE), "positive has 1 examples; at least 2"),
    "widths differ": ((POSITIVE, NEGATIVE[:, 1:]), "positive has width 12, negative 11"),
    "NaN": ((with_value(POSITIVE, float("nan")), NEGATIVE), "NaN or infinite values in 1 of 10"),
    "infinity": ((POSITIVE, with_value(NEGATIVE, float("inf"))), "negative has NaN or infinite"),
    "constant": ((torch.ones(5, 3), torch.ones(4, 3)), "constant|equal"),
    "equal sets": ((POSITIVE, POSITIVE.clone()), "nothing to tell apart"),
    "integers": ((POSITIVE.long(), NEGATIVE), "torch.int64"),
    "one dimension": ((POSITIVE[0], NEGATIVE), r"shape \(12,\)"),
    "three dimensions": ((POSITIVE[None], NEGATIVE), r"shape \(1, 10, 12\)"),
    "lists": ((POSITIVE.tolist(), NEGATIVE), "not list; use torch.as_tensor"),
    "no groups of negatives": ((POSITIVE, NEGATIVE, (OWNERS,)), "groups must be a pair"),
    "groups too short": ((POSITIVE, NEGATIVE, (OWNERS[1:], OWNERS)), "9 labels for 10 examples"),
    "groups too long": (
        (POSITIVE, NEGATIVE, (OWNERS, torch.arange(11))),
        "negative examples has 11 labels",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_sets_are_refused_by_name(case):
    arguments, message = BAD[case]
    with pytest.raises(InvalidInputError, match=message) as caught:
        check_contrast(*arguments)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OdesteerError)


@pytest.mark.parametrize("name", list(BARRIERS))
def test_every_barrier_checks_its_sets(name):
    for arguments, message in BAD.values():
        with pytest.raises(InvalidInputError, match=message):
            BARRIERS[name].clone().fit(*arguments)


@pytest.mark.parametrize("name", list(BARRIERS))
def test_a_failed_fit_leaves_nothing(name):
    barrier = BARRIERS[name].clone().fit(*contrast(10))
    with pytest.raises(InvalidInputError):
        barrier.fit(POSITIVE, NEGATIVE[:0])


def test_an_interrupted_fit_leaves_nothing(monkeypatch):
    barrier = PolynomialBarrier().fit(*contrast(10))

    def interrupt(self, contrast):
        raise KeyboardInterrupt

    monkeypatch.setattr(PolynomialBarrier, "_function", interrupt)
    with pytest.raises(TypeError):
        barrier.fit(*contrast(12))
    assert not barrier.is_fitted
    assert barrier.learned() == {}


@pytest.mark.parametrize("folds", [1, -2, 2.5, True])
def test_folds_are_none_or_at_least_two(folds):
    with pytest.raises(InvalidInputError, match="folds must be 0"):
        LinearBarrier(folds=folds).fit(POSITIVE, NEGATIVE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_fitted_in_float32(dtype):
    halves = [a.to(dtype) for a in contrast(20)]
    from_halves = PolynomialBarrier(folds=0).fit(*halves)
    from_floats = PolynomialBarrier(folds=0).fit(*(a.float() for a in halves))
    a = queries(dtype=torch.float32)
    assert torch.equal(from_halves.value(a), from_floats.value(a))


def test_the_sets_are_not_modified():
    positive, negative = contrast(20)
    before = positive.clone(), negative.clone()
    for barrier in BARRIERS.values():
        barrier.clone().fit(positive, negative)
    assert torch.equal(positive, before[0])
    assert torch.equal(negative, before[1])


def test_groups_may_be_any_labels():
    data = contrast(10)
    texts = ([f"pair {i // 2}" for i in range(10)], [f"pair {i // 2}" for i in range(10)])
    numbers = (torch.arange(10) // 2, torch.arange(10) // 2)
    tuples = tuple([("pair", int(i)) for i in owners] for owners in numbers)
    fits = [LinearBarrier(folds=5).fit(*data, groups=g) for g in (texts, numbers, tuples)]
    assert fits[0].held_out_ == fits[1].held_out_ == fits[2].held_out_
    assert fits[0].held_out_ != LinearBarrier(folds=5).fit(*data).held_out_


group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=40)


@settings(deadline=None, max_examples=100)
@given(
    positive=group_lists,
    negative=group_lists,
    n_folds=st.integers(2, 6),
    seed=st.integers(0, 50),
)
def test_folds_never_split_a_group(positive, negative, n_folds, seed):
    groups = torch.tensor(positive + negative)
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    masks = list(group_folds(groups, y, n_folds, seed))
    if not masks:
        return
    assert len(masks) <= n_folds
    # Every example is held out once, and training always sees two of each class.
    assert torch.stack(masks).sum(dim=0).tolist() == [1] * len(y)
    for mask in masks:
        assert not set(groups[mask].tolist()) & set(groups[~mask].tolist())
        assert min(int((y[~mask] == label).sum()) for label in (0, 1)) >= 2
    again = list(group_folds(groups, y, n_folds, seed))
    assert all(torch.equal(mask, same) for mask, same in zip(masks, again, strict=True))


def test_folds_share_out_the_classes():
    groups = torch.arange(100)
    y = (torch.arange(100) < 20).double()
    shares = [float(y[mask].mean()) for mask in group_folds(groups, y, 5, seed=0)]
    assert shares == [0.2] * 5


def test_folds_depend_on_the_seed():
    groups, y = torch.arange(40), (torch.arange(40) < 20).double()
    first, other = (next(group_folds(groups, y, 4, seed)) for seed in (0, 1))
    assert not torch.equal(first, other)


def test_held_out_values_have_not_seen_their_group():
    """Two equal examples of opposite classes in each group: the honest AUC is one half or less."""
    a = torch.randn(30, 40, dtype=torch.float64)
    noise = 1e-3 * torch.randn(2, 30, 40, dtype=torch.float64)
    owners = torch.arange(30)
    positive, negative = a + noise[0], a + noise[1]
    barrier = LinearBarrier(C=1e6, folds=5)
    honest = barrier.clone().fit(positive, negative, groups=(owners, owners)).held_out_
    assert honest["auc"] < 0.65
    # In groups of their own, twins of held-out examples are trained on with the other label.
    leaking = barrier.clone().fit(positive, negative, groups=(owners, owners + 30)).held_out_
    assert leaking["auc"] < honest["auc"]
