"""Intervals: what they cover, what they share, what they leave out."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics import Observation, PairedBootstrap


def _cells(values: np.ndarray) -> list[Observation]:
    """A table of scores `[n_units, n_seeds]` as cells."""
    return [
        Observation(f"q{unit}", seed, None if np.isnan(value) else float(value))
        for (unit, seed), value in np.ndenumerate(values)
    ]


@pytest.mark.parametrize(
    ("of_units", "of_seeds", "of_noise", "n_seeds"),
    [(1.0, 0.0, 0.0, 1), (1.0, 0.0, 1.0, 3), (0.3, 0.0, 1.0, 3)],
)
def test_intervals_cover_the_true_mean(
    of_units: float, of_seeds: float, of_noise: float, n_seeds: int
) -> None:
    generator = np.random.default_rng(0)
    bootstrap = PairedBootstrap(n_resamples=300)
    covered = 0
    widths = []
    n_tables = 150
    for _ in range(n_tables):
        table = (
            0.4
            + of_units * generator.standard_normal((40, 1))
            + of_seeds * generator.standard_normal((1, n_seeds))
            + of_noise * generator.standard_normal((40, n_seeds))
        )
        found = bootstrap.estimates({"a": _cells(table)})["a"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.4 <= found.high
        widths.append(found.high - found.low)
    assert covered / n_tables >= 0.88
    # Prompts alone are resampled: neither 1.4 to 1.6 times too wide nor too narrow.
    deviation = (of_units**2 + of_noise**2 / n_seeds) ** 0.5 / 40**0.5
    assert np.mean(widths) == pytest.approx(2 * 1.96 * deviation, rel=0.07)


def test_an_interval_is_not_wider_than_it_need_be() -> None:
    table = np.random.default_rng(1).standard_normal((400, 1))
    found = PairedBootstrap(n_resamples=1000).estimates({"a": _cells(table)})["a"]
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_seeds_of_one_prompt_do_not_count_as_prompts() -> None:
    table = np.random.default_rng(1).standard_normal((50, 1))
    one = PairedBootstrap().estimates({"a": _cells(table)})["a"]
    thrice = PairedBootstrap().estimates({"a": _cells(np.repeat(table, 3, axis=1))})["a"]
    assert (thrice.low, thrice.high) == (pytest.approx(one.low), pytest.approx(one.high))
    assert (one.n, thrice.n) == (50, 150)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 20, 0.0, 0.168), (20, 20, 0.832, 1.0), (1, 20, 0.001, 0.249), (200, 200, 0.982, 1.0)],
)
def test_intervals_do_not_collapse_at_the_ends(right: int, n: int, low: float, high: float) -> None:
    cells = [Observation(f"q{i}", 0, float(i < right)) for i in range(n)]
    found = PairedBootstrap().estimates({"a": cells})["a"]
    assert found.low == pytest.approx(low, abs=1e-3)  # Clopper and Pearson's table
    assert found.high == pytest.approx(high, abs=1e-3)


def test_two_methods_that_are_always_right_may_still_differ() -> None:
    cells = [Observation(f"q{i}", 0, 1.0) for i in range(20)]
    found = PairedBootstrap().differences({"a": cells, "b": cells})["a", "b"]
    assert found.value == 0
    assert found.low == pytest.approx(-0.168, abs=1e-3)
    assert found.high == pytest.approx(0.168, abs=1e-3)
    worse = [Observation(f"q{i}", 0, float(i > 1)) for i in range(20)]
    some = PairedBootstrap().differences({"a": cells, "b": worse})["a", "b"]
    assert some.value == pytest.approx(0.1)
    assert -0.1 < some.low < 0.1 < some.high < 0.4


def test_a_single_prompt_has_no_interval() -> None:
    found = PairedBootstrap().estimates({"a": [Observation("q", 0, 0.3)]})["a"]
    assert (found.value, found.low, found.high) == (0.3, None, None)


def test_what_prompts_share_cancels_in_differences() -> None:
    generator = np.random.default_rng(0)
    hard = 5 * generator.standard_normal((50, 1))
    first = hard + 0.1 * generator.standard_normal((50, 2))
    second = hard + 0.2 + 0.1 * generator.standard_normal((50, 2))
    methods = {"first": _cells(first), "second": _cells(second)}
    alone = PairedBootstrap().estimates(methods)
    difference = PairedBootstrap().differences(methods)["first", "second"]
    assert difference.high < 0
    assert difference.high - difference.low < 0.1 * (alone["first"].high - alone["first"].low)
    assert difference.value == pytest.approx(float((first - second).mean()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=8), st.randoms())
def test_means_missing_values_and_order(values: list[float | None], rng: random.Random) -> None:
    cells = [Observation(f"q{i // 2}", i % 2, value) for i, value in enumerate(values)]
    bootstrap = PairedBootstrap(n_resamples=50)
    found = bootstrap.estimates({"a": cells})["a"]
    present = [value for value in values if value is not None]
    assert (found.n, found.n_missing) == (len(present), len(values) - len(present))
    if not present:
        assert (found.value, found.low, found.high) == (None, None, None)
        return
    assert found.value == pytest.approx(np.mean(present))
    again = bootstrap.estimates({"a": rng.sample(cells, len(cells))})["a"]
    if found.low is None:
        assert len({cell.unit for cell in cells if cell.value is not None}) == 1
        assert again.low is None
        return
    if not {*present} <= {0.0, 1.0}:
        assert min(present) - 1e-9 <= found.low <= found.high <= max(present) + 1e-9
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 or len(present) < 5
    assert again.low == pytest.approx(found.low)
    assert again.high == pytest.approx(found.high)


def test_a_method_does_not_differ_from_itself() -> None:
    cells = _cells(np.random.default_rng(0).standard_normal((10, 3)))
    for quantile in (None, 0.9):
        found = PairedBootstrap(n_resamples=50).differences({"a": cells, "b": cells}, quantile)
        assert (found["a", "b"].value, found["a", "b"].low, found["a", "b"].high) == (0, 0, 0)


def test_differences_are_of_what_both_have() -> None:
    a = [
        Observation("p", 0, 1.0),
        Observation("q", 0, 5.0),
        Observation("r", 0, None),
        Observation("s", 0, 1.0),
    ]
    b = [Observation("p", 0, 0.0), Observation("q", 0, None), Observation("r", 0, 2.0)]
    found = PairedBootstrap(n_resamples=20).differences({"a": a, "b": b})["a", "b"]
    assert (found.value, found.n, found.n_missing) == (1.0, 1, 3)
    alone = PairedBootstrap(n_resamples=20).differences({"a": a, "b": []})["a", "b"]
    assert (alone.value, alone.n, alone.n_missing) == (None, 0, 4)


def test_prompts_of_a_group_are_paired_by_their_keys() -> None:
    a = [
        Observation("g", 0, 1.0, "x"),
        Observation("g", 0, 3.0, "y"),
        Observation("h", 0, 2.0, "z"),
    ]
    b = [
        Observation("g", 0, None, "x"),
        Observation("g", 0, 1.0, "y"),
        Observation("h", 0, 1.0, "z"),
    ]
    bootstrap = PairedBootstrap(n_resamples=20)
    found = bootstrap.differences({"a": a, "b": b})["a", "b"]
    assert (found.value, found.n, found.n_missing) == (1.5, 2, 1)
    # Items weigh alike, in differences as in means.
    alone = bootstrap.estimates({"a": a})["a"]
    against = bootstrap.differences(
        {"a": a, "zero": [Observation(c.unit, 0, 0.0, c.key) for c in a]}
    )
    assert against["a", "zero"].value == alone.value == 2.0
    assert (against["a", "zero"].low, against["a", "zero"].high) == (alone.low, alone.high)


def test_several_samples_of_a_prompt_are_one_pair() -> None:
    a = [Observation("p", 0, 1.0), Observation("p", 0, 3.0), Observation("q", 0, 1.0)]
    b = [Observation("p", 0, 1.0), Observation("q", 0, 0.0), Observation("q", 0, 0.0)]
    found = PairedBootstrap(n_resamples=20).differences({"a": a, "b": b})["a", "b"]
    assert (found.value, found.n) == (1.0, 2)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
@settings(max_examples=25, deadline=None)
def test_quantiles_are_values_of_the_sample(values: list[int], quantile: float) -> None:
    cells = [Observation(f"q{i}", 0, float(value)) for i, value in enumerate(values)]
    found = PairedBootstrap(n_resamples=10).estimates({"a": cells}, quantile)["a"]
    assert found.value == np.quantile(values, quantile, method="inverted_cdf")
    assert min(values) <= found.low <= found.high <= max(values)


def test_the_same_seed_gives_the_same_figures() -> None:
    cells = _cells(np.random.default_rng(0).standard_normal((10, 3)))
    first, again = (PairedBootstrap(seed=3).estimates({"a": cells}) for _ in range(2))
    assert first == again
    assert first != PairedBootstrap(seed=4).estimates({"a": cells})


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="n_resamples"):
        PairedBootstrap(n_resamples=0)
    with pytest.raises(InvalidInputError, match="confidence"):
        PairedBootstrap(confidence=95)
    with pytest.raises(InvalidInputError, match="not finite"):
        PairedBootstrap().estimates({"a": [Observation("p", 0, float("inf"))]})
    with pytest.raises(InvalidInputError, match="quantile"):
        PairedBootstrap().estimates({"a": [Observation("p", 0, 1.0)]}, quantile=90)
