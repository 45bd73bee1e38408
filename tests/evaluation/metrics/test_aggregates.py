"""Figures over samples and over pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics import expected_maximum, product, wins

SCORES = st.lists(st.one_of(st.none(), st.floats(-1, 1)), max_size=6)


@given(SCORES)
def test_against_oneself_every_answer_ties(scores: list[float | None]) -> None:
    assert wins(scores, scores) == [None if score is None else 0.5 for score in scores]


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), max_size=6))
def test_what_one_wins_the_other_loses(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    both = zip(wins(ours, theirs), wins(theirs, ours), strict=True)
    assert all(a is not None and b is not None and a + b == 1 for a, b in both)


def test_a_maximum_over_fewer_samples_is_missing() -> None:
    assert expected_maximum([[0.1, 0.9], [0.2, None], [None], []]) == [0.9, None, None, None]


def test_a_product_with_a_missing_factor_is_missing() -> None:
    assert product([0.5, 0.5]) == 0.25
    assert product([0.0, None]) is None


def test_pairs_need_partners() -> None:
    with pytest.raises(InvalidInputError, match="2 scores have 1"):
        wins([1.0, 2.0], [1.0])
