"""How much to steer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import contrast
from odesteer.barriers import PolynomialBarrier
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, QUANTITIES, Amount, ODESteer


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


def test_the_unit_of_strength_follows_the_classes_not_the_norm():
    positive, negative = contrast()
    unit = CAA(folds=0).fit(positive, negative).strength_unit
    offset = torch.zeros(positive.shape[1], dtype=positive.dtype)
    offset[2] = 1e3  # a massive activation, the same for both classes
    moved = CAA(folds=0).fit(positive + offset, negative + offset)
    assert moved.strength_unit == pytest.approx(unit)
    assert moved.mean_norm_ > 100 * unit
    scaled = CAA(folds=0).fit(7 * positive, 7 * negative)
    assert scaled.strength_unit == pytest.approx(7 * unit)


def test_the_unit_of_strength_counts_both_classes_alike():
    positive, negative = contrast()
    unit = CAA(folds=0).fit(positive, negative).strength_unit
    more = CAA(folds=0).fit(positive, negative.repeat(9, 1))
    assert more.strength_unit == pytest.approx(unit)


def test_the_unit_of_strength_at_the_ends():
    corners = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert ODESteer(PolynomialBarrier(folds=0)).fit(*corners).strength_unit == 1  # equal means
    positive, negative = contrast()
    near = negative + 0.01 * (positive.mean(dim=0) - negative.mean(dim=0))  # overlap
    distance = float((near.mean(dim=0) - negative.mean(dim=0)).norm())
    assert CAA(folds=0).fit(near, negative).strength_unit == pytest.approx(3 * distance)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.float16(0.5), np.int64(2)])
def test_scalars_of_numpy_are_numbers(number):
    amount = Amount("T", number)
    assert amount == Amount("T", float(number))
    assert isinstance(amount.value, float)


@pytest.mark.parametrize("value", [np.bool_(True), "1", 1j, np.array(1.0)])
def test_other_things_are_no_numbers(value):
    with pytest.raises(InvalidInputError, match="must be a number or a tensor"):
        Amount("T", value)
