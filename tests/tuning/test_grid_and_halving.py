"""Grid of layers and amounts, successive halving, scores."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.tuning import Halving, Measurement, Score, Setting, coarse_layers
from odesteer.tuning.search.grid import neighbours


def setting(layer: int, value: float = 1.0, quantity: str = "level") -> Setting:
    return Setting(0, layer, Amount(quantity, value))


@given(st.integers(1, 200), st.integers(2, 12))
def test_coarse_layers_are_layers(n_layers: int, most: int) -> None:
    layers = coarse_layers(n_layers, most)
    assert list(layers) == sorted(set(layers))
    assert layers[0] >= 0
    assert layers[-1] < n_layers
    assert len(layers) <= most
    if n_layers <= most:
        assert layers == tuple(range(n_layers))
    else:
        steps = [b - a for a, b in itertools.pairwise(layers)]
        assert not steps or max(steps) - min(steps) <= 2


@given(st.integers(1, 400), st.integers(1, 6), st.integers(1, 32))
def test_rungs_take_each_item_once(n_items: int, rungs: int, first: int) -> None:
    steps = Halving(rungs=rungs, first=first).steps(n_items)
    assert [i for step in steps for i in step] == list(range(n_items))
    assert len(steps) <= rungs
    assert all(len(step) > 0 for step in steps)


def test_settings_are_stopped_with_a_reason() -> None:
    def measured(value: float, cost: float, spread: float = 0.0) -> list[Measurement]:
        return [Measurement(value + spread * (-1) ** i, cost) for i in range(8)]

    settings = {
        setting(0): measured(1.0, 0.1),
        setting(1): measured(9.0, 0.9),  # good, and too costly
        setting(2): measured(0.5, 0.1),  # surely worse
        setting(3): measured(0.9, 0.1, 1.0),  # perhaps worse
        setting(4): measured(0.8, 0.1, 2.0),
        setting(5): [Measurement(None, 0.1)] * 8,
    }
    reasons = Halving(least=2).given_up(settings, budget=0.2)
    assert reasons == {
        setting(1): "over budget",
        setting(2): "behind",
        setting(4): "halved",
        setting(5): "not judged",
    }
    assert setting(4) not in Halving(least=3).given_up(settings, budget=0.2)
    assert setting(1) not in Halving(least=6).given_up(settings, budget=1.0)


def test_a_cost_over_the_budget_within_two_errors_is_not_stopped() -> None:
    noisy = [Measurement(1.0, 0.3 + (-1) ** i) for i in range(8)]
    assert Halving().given_up({setting(0): noisy}, budget=0.25) == {}
    steady = [Measurement(1.0, 0.3 + 0.01 * (-1) ** i) for i in range(8)]
    assert Halving().given_up({setting(0): steady}, budget=0.25) == {setting(0): "over budget"}


def test_neighbours_are_half_way_to_the_nearest_settings() -> None:
    tried = [setting(layer, value) for layer in (4, 8, 12) for value in (1.0, 2.0)]
    found = neighbours(setting(8, 2.0), tried, range(32))
    assert [(c.layer, c.value) for c in found] == [(6, 2.0), (10, 2.0), (8, 1.5), (8, 3.0)]
    first = neighbours(setting(4, 1.0), tried, range(32))
    assert [(c.layer, c.value) for c in first] == [(6, 1.0), (4, 0.5), (4, 1.5)]
    whole = [setting(1, value, "interpolation") for value in (0.5, 1.0)]
    assert [c.value for c in neighbours(whole[1], whole, [1])] == [0.75, 1.5]
    alone = [setting(3, 1.0)]
    beside = neighbours(alone[0], alone, range(2, 5))
    assert [(c.layer, c.value) for c in beside] == [(2, 1.0), (4, 1.0), (3, 0.5), (3, 2.0)]


@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True),
    st.data(),
)
def test_neighbours_are_new_settings_at_layers_of_the_model(values, layers, data) -> None:
    values = [float(f"{value:.4g}") for value in values]
    tried = [setting(layer, value) for layer in layers for value in dict.fromkeys(values)]
    around = data.draw(st.sampled_from(tried))
    found = neighbours(around, tried, range(41))
    assert not set(found) & set(tried)
    assert all(0 <= c.layer < 41 and c.value > 0 for c in found)
    assert len(found) <= 4


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_scores_are_means_with_errors(values: list[float]) -> None:
    score = Score.of([Measurement(v, None) for v in values] + [Measurement(None, 0.5)])
    mean = sum(values) / len(values)
    assert score.value == pytest.approx(mean)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    assert score.value_error == pytest.approx(deviation / math.sqrt(len(values)))
    assert (score.n, score.missing, score.fluency) == (len(values) + 1, 1, 0.5)
    assert math.isnan(score.fluency_error)


def test_measurements_are_finite() -> None:
    for figure in (math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="fluency"):
            Measurement(0.0, figure)


@pytest.mark.parametrize(
    "changes", [{"rungs": 0}, {"factor": 0.5}, {"factor": math.nan}, {"least": 0}, {"first": True}]
)
def test_invalid_parameters_of_halving(changes: dict) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(changes))):
        Halving(**changes)
