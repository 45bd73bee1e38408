"""Distinct n-grams and repetition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics import distinct, distinct_in_all, repetition

TEXTS = st.lists(st.sampled_from(["a", "b", "C", "c", "dog"]), max_size=12).map(" ".join)


@given(TEXTS, st.integers(1, 4))
def test_distinct_counts_what_a_list_shows(text: str, n: int) -> None:
    words = text.lower().split()
    grams = [" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 0))]
    expected = len(set(grams)) / len(grams) if grams else None
    assert distinct(text, n) == expected


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 3))
def test_saying_everything_twice_halves_the_distinct_share(texts: list[str], n: int) -> None:
    once = distinct_in_all(texts, n)
    twice = distinct_in_all([*texts, *texts], n)
    assert twice == (None if once is None else pytest.approx(once / 2))


def test_no_n_gram_spans_two_texts() -> None:
    assert distinct_in_all(["a b", "b a"], 2) == 1.0
    assert distinct_in_all(["a", "b"], 2) is None


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("a b", 0.0), ("a b c d", 0.0), ("a b c a b c", 0.25), ("no no no no no", 2 / 3)],
)
def test_repetition_is_the_share_of_trigrams_said_before(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_n_must_be_a_positive_integer(n: object) -> None:
    with pytest.raises(InvalidInputError, match="n-gram"):
        distinct("a b", n)  # type: ignore[arg-type]
