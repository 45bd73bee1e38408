"""Tests of declared contrasts: calibrated p-values, Holm's correction, what a size resolves."""

import numpy as np
import pytest

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics import Observation, holm, p_value, resolution


def _cells(values: np.ndarray) -> list[Observation]:
    return [Observation(f"q{i}", 0, float(value)) for i, value in enumerate(values)]


def test_p_values_of_no_difference_are_uniform() -> None:
    generator = np.random.default_rng(0)
    found = [
        p_value(_cells(generator.standard_normal(9)), _cells(generator.standard_normal(9)))
        for _ in range(200)
    ]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_all_flips_of_few_prompts_are_tried() -> None:
    # Both tails of 2^6 flips.
    assert p_value(_cells(np.ones(6)), _cells(np.zeros(6))) == pytest.approx(2 / 64)
    assert p_value(_cells(np.ones(6)), _cells(np.ones(6))) == 1.0
    assert p_value(_cells(np.array([1.0, 0, 0])), _cells(np.zeros(3))) == 1.0
    assert p_value([], _cells(np.ones(6))) is None


def test_seeds_of_a_prompt_flip_together() -> None:
    a = [Observation(f"q{i}", seed, 1.0) for i in range(6) for seed in range(5)]
    b = [Observation(f"q{i}", seed, 0.0) for i in range(6) for seed in range(5)]
    assert p_value(a, b) == pytest.approx(2 / 64)


def test_holm() -> None:
    # The example of the method: three hypotheses times their rank from the least.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}
    with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
        holm({"a": 1.2})


def test_five_hundred_prompts_resolve_4_4_points() -> None:
    assert resolution(500) == pytest.approx(0.0438, abs=1e-4)
    assert resolution(2000) == pytest.approx(resolution(500) / 2)
    with pytest.raises(InvalidInputError):
        resolution(0)
