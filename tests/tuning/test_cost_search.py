"""Amounts found by their cost: powers, plateaus, refusals, and smallest costs."""

import math

import pytest

from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.methods import CAA, MiMiC, ODESteer
from odesteer.tuning.cost_search import CostSearch, largest_amount


def search(cost: object, **options: object) -> CostSearch:
    return CostSearch(cost, **{"start": 1.0, "most": 64.0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.7, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0])
def test_a_power_is_found_within_the_tolerance(power: float, scale: float) -> None:
    found = search(lambda amount: scale * amount**power, start=0.5, most=1e4, evaluations=12)
    for target in (0.05, 0.1, 0.3):
        amount = found.find(target)
        assert amount is not None
        assert scale * amount**power == pytest.approx(target, rel=0.06)


def test_later_targets_use_what_was_measured() -> None:
    asked: list[float] = []

    def cost(amount: float) -> float:
        asked.append(amount)
        return 0.1 * amount**2

    found = search(cost)
    for target in (0.05, 0.1, 0.3):
        found.find(target)
    assert len(asked) == len(set(asked)) <= 8


def test_a_cost_out_of_reach_is_none_and_soon_given_up() -> None:
    found = search(lambda amount: 0.2 * math.tanh(amount))
    assert found.find(0.3) is None
    assert len(found.measured) <= 4
    assert found.find(0.1) == pytest.approx(math.atanh(0.5), rel=0.1)


def test_amounts_that_a_method_refuses_count_as_too_large() -> None:
    def cost(amount: float) -> float:
        if amount > 2:
            raise ConvergenceError("too far")
        return 0.05 * amount

    found = search(cost)
    assert found.find(0.08) == pytest.approx(1.6, rel=0.06)
    assert found.find(0.2) is None


def test_the_error_of_the_first_amount_is_raised() -> None:
    def cost(amount: float) -> float:
        raise InvalidInputError("it cannot be fitted")

    with pytest.raises(InvalidInputError, match="cannot be fitted"):
        search(cost).find(0.1)


def test_where_the_smallest_amount_costs_more_it_is_given() -> None:
    found = search(lambda amount: 0.2 + 0.01 * amount)
    amount = found.find(0.05)
    assert amount is not None
    assert found.measured[amount] == min(found.measured.values())


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_costs_are_positive(target: float) -> None:
    with pytest.raises(InvalidInputError, match="positive"):
        search(lambda amount: amount).find(target)


def test_the_largest_amount_is_one_that_the_method_takes() -> None:
    assert largest_amount(CAA(), "strength") == 64
    assert largest_amount(ODESteer(), "level") > 3
    assert largest_amount(MiMiC(), "interpolation") >= 1
