"""Multiple choice scores against their definitions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics import mc1, mc2, mc3

LIKELIHOODS = st.floats(-30, -0.1)


@st.composite
def _questions(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=8))
    if len(set(labels)) == 1:
        labels[0] = 1 - labels[0]
    values = draw(st.lists(LIKELIHOODS, min_size=len(labels), max_size=len(labels), unique=True))
    return values, labels


@given(_questions())
def test_against_brute_force(question: tuple[list[float], list[int]]) -> None:
    values, labels = question
    true = [value for value, label in zip(values, labels, strict=True) if label]
    false = [value for value, label in zip(values, labels, strict=True) if not label]
    assert mc1(values, labels) == float(max(true) > max(false))
    mass = sum(math.exp(value) for value in values)
    assert mc2(values, labels) == pytest.approx(sum(map(math.exp, true)) / mass)
    beating = [value for value in true if all(value > other for other in false)]
    assert mc3(values, labels) == pytest.approx(len(beating) / len(true))


@given(_questions(), st.floats(-2000, 0))
def test_only_differences_of_likelihoods_count(
    question: tuple[list[float], list[int]], shift: float
) -> None:
    values, labels = question
    moved = [value + shift for value in values]
    assert mc2(moved, labels) == pytest.approx(mc2(values, labels), rel=1e-6)


def test_of_equally_likely_answers_the_first_is_chosen() -> None:
    assert mc1([-1.0, -1.0], [1, 0]) == 1.0
    assert mc1([-1.0, -1.0], [0, 1]) == 0.0
    assert mc3([-1.0, -1.0], [1, 0]) == 0.0


@pytest.mark.parametrize(
    ("values", "labels"),
    [([-1.0], [1, 0]), ([-1.0, -2.0], [1, 1]), ([-1.0, -2.0], [0, 0]), ([], []),
     ([-1.0, math.nan], [1, 0]), ([-1.0, -math.inf], [1, 0]), ([-1.0, -2.0], [1, 2])],
)  # fmt: skip
@pytest.mark.parametrize("score", [mc1, mc2, mc3])
def test_questions_that_cannot_be_scored(score, values, labels) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInputError):
        score(values, labels)
