"""Which columns of a pass are moved: every position, by cases that can be checked by hand."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.artifact import POSITIONS
from odesteer.models.steering.positions import steered_columns


@pytest.mark.parametrize(
    ("position", "prefill", "step"),
    [
        ("last", [4], [0]),
        ("generated", [], [0]),
        ("prompt", [0, 1, 2, 3, 4], []),
        ("all", [0, 1, 2, 3, 4], [0]),
    ],
)
def test_a_prompt_of_five_then_one_token(
    position: str, prefill: list[int], step: list[int]
) -> None:
    assert list(steered_columns(position, 5, 0, (5,))) == prefill
    assert list(steered_columns(position, 1, 5, (5,))) == step


def test_a_second_turn_on_a_cache_is_a_prompt() -> None:
    assert list(steered_columns("prompt", 3, 10, (13,))) == [0, 1, 2]
    assert list(steered_columns("generated", 3, 10, (13,))) == []
    assert list(steered_columns("last", 3, 10, (13,))) == [2]


def test_a_prompt_of_one_token_is_a_prompt() -> None:
    assert list(steered_columns("prompt", 1, 0, (1,))) == [0]
    assert list(steered_columns("generated", 1, 0, (1,))) == []


def test_prompts_that_end_in_different_columns() -> None:
    """All columns that any of the rows moves."""
    assert list(steered_columns("prompt", 6, 0, (2, 4))) == [0, 1, 2, 3]
    assert list(steered_columns("generated", 6, 0, (2, 4))) == [2, 3, 4, 5]
    assert list(steered_columns("last", 6, 0, (2, 4))) == [1, 2, 3, 4, 5]


@given(
    position=st.sampled_from(POSITIONS),
    width=st.integers(1, 12),
    n_generated=st.integers(0, 8),
    cuts=st.lists(st.integers(1, 19), max_size=6),
)
def test_how_a_sequence_is_cut_into_passes_does_not_matter(
    position: str, width: int, n_generated: int, cuts: list[int]
) -> None:
    total = width + n_generated
    expected = {
        "last": range(width - 1, total),
        "generated": range(width, total),
        "prompt": range(width),
        "all": range(total),
    }[position]
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    moved = [
        start + column
        for start, stop in pairwise(edges)
        for column in steered_columns(position, stop - start, start, (width,))
    ]
    assert moved == list(expected)


@given(past=st.integers(0, 5), length=st.integers(1, 6), width=st.integers(1, 8))
def test_prompt_and_generated_make_all(past: int, length: int, width: int) -> None:
    prompt, generated = (
        set(steered_columns(position, length, past, (width,)))
        for position in ("prompt", "generated")
    )
    assert prompt.isdisjoint(generated)
    assert prompt | generated == set(steered_columns("all", length, past, (width,)))
