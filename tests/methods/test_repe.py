"""RepE: its direction, its sign, its pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from barrier_cases import WIDTH, contrast, queries
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, RepE


def alike(one, other):
    """Equal up to sign."""
    return float(torch.minimum((one - other).norm(), (one + other).norm())) < 1e-6


@pytest.mark.parametrize("n", [8, 40])
def test_the_first_principal_component(n):
    """Of fewer differences than dimensions, and of more."""
    positive, negative = contrast(n)
    direction = RepE(centred=True, folds=0).fit(positive, negative).direction_
    pca = PCA(1).fit((positive - negative).numpy())
    assert alike(direction, torch.from_numpy(pca.components_[0]))
    assert float(direction.norm()) == pytest.approx(1)


def test_without_centring_shuffled_sides_do_not_matter():
    positive, negative = contrast(400)
    ours = RepE(centred=False, folds=0).fit(positive, negative).direction_
    side = torch.randint(2, (400, 1), generator=torch.Generator().manual_seed(3)) * 2 - 1
    shuffled = PCA(1).fit((side * (positive - negative)).numpy()).components_[0]
    assert abs(float(ours @ torch.from_numpy(shuffled))) > 0.98
    caa = CAA(folds=0).fit(positive, negative).direction_
    centred = RepE(centred=True, folds=0).fit(positive, negative).direction_
    assert float(ours @ caa) > 2 * float(centred @ caa)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(3, 30), st.sampled_from([1e-3, 1.0, 1e3]))
def test_positives_score_higher(seed, n, size):
    positive, negative = (size * a for a in contrast(n, seed=seed))
    method = RepE(centred=True, folds=0).fit(positive, negative)
    assert float((positive @ method.direction_).mean()) >= float(
        (negative @ method.direction_).mean()
    )
    # Whichever way the sides are named, it is the same line, and the sign follows.
    turned = RepE(centred=True, folds=0).fit(negative, positive)
    torch.testing.assert_close(turned.direction_, -method.direction_, rtol=1e-5, atol=1e-6)
    # What is in the middle between the classes has value 0.
    middle = (positive.mean(0) + negative.mean(0)) / 2
    assert abs(float(method.barrier.value(middle))) < 1e-9 * size


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(12)), st.permutations(range(12)))
def test_rows_may_come_in_any_order_where_groups_say_which_belong_together(one, other):
    positive, negative = contrast(12)
    groups = torch.arange(12)
    ordered = RepE(centred=True, folds=0).fit(positive, negative, (groups, groups)).direction_
    mixed = RepE(centred=True, folds=0).fit(
        positive[list(one)], negative[list(other)], (groups[list(one)], groups[list(other)])
    )
    torch.testing.assert_close(mixed.direction_, ordered)
    torch.testing.assert_close(
        ordered, RepE(centred=True, folds=0).fit(positive, negative).direction_
    )


def test_repeated_answers_to_one_question_are_all_used():
    positive, negative = contrast(9)
    method = RepE(centred=True, folds=0).fit(positive, negative[:4], ("aabbccddx", "abcd"))
    assert (method.barrier.n_pairs_, method.barrier.n_alone_) == (8, 1)
    pairs = positive[:8] - negative[[0, 0, 1, 1, 2, 2, 3, 3]]
    alone = positive[8:] - negative[:4].mean(0)
    pca = PCA(1).fit(torch.cat([pairs, alone]).numpy())
    assert alike(method.direction_, torch.from_numpy(pca.components_[0]))


def test_sets_that_are_not_paired_stand_against_means():
    positive, negative = contrast(30)
    method = RepE(centred=True, folds=0).fit(positive, negative[:20])
    assert (method.barrier.n_pairs_, method.barrier.n_alone_) == (0, 50)
    differences = torch.cat([positive - negative[:20].mean(0), positive.mean(0) - negative[:20]])
    assert alike(method.direction_, torch.from_numpy(PCA(1).fit(differences).components_[0]))


def test_equal_shifts_of_all_pairs_have_no_component():
    positive = contrast()[0]
    shift = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    with pytest.raises(InvalidInputError, match="use centred=False or CAA"):
        RepE(centred=True, folds=0).fit(positive + shift, positive)
    direction = RepE(centred=False, folds=0).fit(positive + shift, positive).direction_
    torch.testing.assert_close(direction, shift / shift.norm())


def test_the_default_amount_is_a_strength():
    method = RepE(strength=0.4).fit(*contrast())
    moved = method.steer(queries()) - queries()
    torch.testing.assert_close(
        moved, (0.4 * method.strength_unit * method.direction_).expand_as(moved)
    )
