"""How much to steer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.methods import QUANTITIES, Amount


@settings(deadline=None)
@given(
    quantity=st.sampled_from(list(QUANTITIES)),
    value=st.floats(allow_nan=False, allow_infinity=False),
)
def test_amounts_are_written_and_read(quantity, value):
    amount = Amount(quantity, value)
    assert Amount.parse(str(amount), "level") == amount
    assert Amount.parse(f" {value!r} ", quantity) == amount
    assert Amount.of(**{quantity: value}) == amount


def test_at_most_one_is_given():
    assert Amount.of() is None
    assert Amount.of(T=0.0) == Amount("T", 0.0)
    with pytest.raises(InvalidInputError, match=r"not level=1\.0 and T=2\.0"):
        Amount.of(level=1.0, T=2.0)


@pytest.mark.parametrize(
    ("quantity", "value", "message"),
    [
        ("speed", 1.0, "unknown quantity 'speed'; use one of level, T"),
        ("T", math.nan, "T must be finite"),
        ("T", -math.inf, "T must be finite"),
        ("T", torch.tensor([1.0, math.nan]), "T must be finite"),
        ("T", True, "must be a number"),
        ("T", "5", "must be a number"),
        ("T", None, "must be a number"),
        ("T", [1.0], "must be a number"),
        ("level", torch.tensor([True]), "must hold numbers"),
        ("level", torch.tensor([1j]), "must hold numbers"),
    ],
)
def test_unusable_amounts(quantity, value, message):
    with pytest.raises(InvalidInputError, match=message):
        Amount(quantity, value)


def test_integers_are_numbers():
    assert Amount("level", 2).value == 2
    assert Amount("level", torch.tensor([1, 2])).value.dtype == torch.float32


@pytest.mark.parametrize("text", ["", "T=", "=", "T=x", "T 5", "one"])
def test_unreadable_texts(text):
    with pytest.raises(InvalidInputError):
        Amount.parse(text, "level")
    with pytest.raises(InvalidInputError, match="unknown quantity 'speed'"):
        Amount.parse("speed=5", "level")
