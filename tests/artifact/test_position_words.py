"""The words for steering positions: what they mean, one spelling of each, clear errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.artifact import POSITIONS, Site
from odesteer.artifact.positions import Phase, SteerPosition, parse_position
from odesteer.errors import InvalidInputError

THINK = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "meaning", "canonical"),
    [
        *((word, SteerPosition(word), word) for word in POSITIONS),
        ("generated::32", SteerPosition("generated", 0, 32), "generated:0:32"),
        ("generated:32:", SteerPosition("generated", 32), "generated:32:"),
        ("generated::", SteerPosition("generated"), "generated"),
        ("last:0:1", SteerPosition("last", 0, 1), "last:0:1"),
        ("thinking", SteerPosition("last", phase=Phase("inside", *THINK)), "thinking"),
        ("answer", SteerPosition("last", phase=Phase("outside", *THINK)), "answer"),
        ("answer:<think>..</think>", parse_position("answer"), "answer"),
        (
            "thinking:[A]..[B]",
            SteerPosition("last", phase=Phase("inside", "[A]", "[B]")),
            "thinking:[A]..[B]",
        ),
        ("after:a: b", SteerPosition("last", phase=Phase("after", "", "a: b")), "after:a: b"),
    ],
)
def test_words_and_their_meaning(text: str, meaning: SteerPosition, canonical: str) -> None:
    assert parse_position(text) == meaning
    assert str(meaning) == canonical
    assert Site(3, text).position == canonical
    assert Site(3, text) == Site(3, canonical)


@given(st.sampled_from(["last", "generated"]), st.integers(0, 99), st.integers(1, 99))
def test_windows_are_slices(word: str, start: int, length: int) -> None:
    parsed = parse_position(f"{word}:{start}:{start + length}")
    assert (parsed.start, parsed.stop) == (start, start + length)
    assert parse_position(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first", "must be one of last, generated, prompt, all, last:A:B"),
        ("", "must be one of"),
        (3, "must be one of"),
        ("x" * 300, "must be one of"),
        ("generated:3", "must be one of"),
        ("generated:1:2:3", "must be one of"),
        ("prompt:0:3", "only last and generated have windows"),
        ("all::3", "only last and generated have windows"),
        ("generated:-32:", "not known while it is generated; count from its beginning.*96"),
        ("generated:0:-1", "not known while it is generated"),
        ("generated:a:", "'a' is no number; write generated:A:B"),
        ("last:²:", "is no number"),
        ("last:3:3", "holds no token"),
        ("after:", "has no marker"),
        ("thinking:", "must be one of"),
        ("thinking:<a>", "write thinking:OPEN..CLOSE"),
        ("thinking:<a>..<a>", "two different markers"),
        ("answer:..<a>", "two different markers"),
    ],
)
def test_other_words(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Site(1, text)
