"""Paired bootstrap: means, quantiles and their differences, with confidence intervals.

Prompts and seeds are both resampled, with replacement and independently of each other, as rows
and columns of a table (McCullagh 2000, "Resampling and exchangeable arrays"; Owen 2007, "The
pigeonhole bootstrap"). All methods share the resamples, so that what prompts and seeds do to all
of them alike cancels in differences. The interval covers a new draw of both. It is conservative
where scores depend little on prompt and seed (at most √3 times too wide), and too narrow where
seeds matter as much as prompts do and there are only two or three of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from odesteer.errors import InvalidInputError

Array = NDArray[np.float64]
PairingKey = tuple[str, int, str]
"""Unit, seed and key."""


@dataclass(frozen=True)
class Observation:
    """A score of one completion.

    Attributes:
        unit: the prompt, or the group of prompts that are not independent.
        seed: of the run.
        value: the score; None if it is missing.
        key: for pairing in differences where a unit has several prompts: the prompt.
    """

    unit: str
    seed: int
    value: float | None
    key: str = ""

    @property
    def pairing_key(self) -> PairingKey:
        """Observations of two methods with the same key are paired."""
        return self.unit, self.seed, self.key


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval, of the scores that are not missing.

    Attributes:
        value: the statistic; None if all scores are missing.
        low, high: the ends of the interval; None likewise.
        n: number of scores it is of.
        n_missing: number of scores that are missing.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_missing: int


@dataclass(frozen=True)
class PairedBootstrap:
    """Paired bootstrap over prompts and seeds.

    Attributes:
        n_resamples: the number of resamples.
        confidence: of the interval, between 0 and 1.
        seed: of the resampling.
    """

    n_resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.n_resamples, bool) or self.n_resamples < 1:
            raise InvalidInputError(f"n_resamples must be positive, not {self.n_resamples}.")
        if not 0 < self.confidence < 1:
            raise InvalidInputError(f"confidence must lie in (0, 1), not {self.confidence}.")

    def estimates(
        self, methods: Mapping[str, Iterable[Observation]], quantile: float | None = None
    ) -> dict[str, Estimate]:
        """The mean of each method, or a ``quantile`` (0 to 1), with its interval.

        Observations of one unit and seed (several samples of one prompt) are resampled together.
        """
        read = {name: list(observations) for name, observations in methods.items()}
        resamples = self._resamples(read.values())
        return {
            name: self._estimate(resamples, observations, quantile, _n_missing(observations))
            for name, observations in read.items()
        }

    def differences(
        self, methods: Mapping[str, Iterable[Observation]], quantile: float | None = None
    ) -> dict[tuple[str, str], Estimate]:
        """First minus second, for each pair of methods in the order given.

        Of means: over what both have by unit, seed and key (several samples of one are averaged);
        the rest counts as missing. Of a ``quantile``: the difference of the two quantiles.
        """
        read = {name: list(observations) for name, observations in methods.items()}
        resamples = self._resamples(read.values())
        return {
            (a, b): self._difference(resamples, read[a], read[b], quantile)
            for a, b in combinations(read, 2)
        }

    def _difference(
        self,
        resamples: "_Resamples",
        a: Sequence[Observation],
        b: Sequence[Observation],
        quantile: float | None,
    ) -> Estimate:
        first, second = _averages(a), _averages(b)
        shared = [at for at in first if at in second]
        n_missing = len({observation.pairing_key for observation in (*a, *b)}) - len(shared)
        if quantile is None:
            observations = [
                Observation(at[0], at[1], first[at] - second[at], at[2]) for at in shared
            ]
            return self._estimate(resamples, observations, None, n_missing)
        kept = set(shared)
        sides = [
            [observation for observation in observations if observation.pairing_key in kept]
            for observations in (a, b)
        ]
        if not shared:
            return Estimate(None, None, None, 0, n_missing)
        (value_a, all_a), (value_b, all_b) = (resamples.of(side, quantile) for side in sides)
        low, high = self._interval(all_a - all_b)
        return Estimate(value_a - value_b, low, high, len(shared), n_missing)

    def _estimate(
        self,
        resamples: "_Resamples",
        observations: Sequence[Observation],
        quantile: float | None,
        n_missing: int,
    ) -> Estimate:
        present = [observation for observation in observations if observation.value is not None]
        if not present:
            return Estimate(None, None, None, 0, n_missing)
        value, resampled = resamples.of(present, quantile)
        low, high = self._interval(resampled)
        return Estimate(value, low, high, len(present), n_missing)

    def _interval(self, resampled: Array) -> tuple[float, float]:
        # Resamples that drew none of the scores have no statistic.
        drawn = resampled[~np.isnan(resampled)]
        if not drawn.size:
            return float("nan"), float("nan")
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return float(low), float(high)

    def _resamples(self, all_observations: Iterable[Sequence[Observation]]) -> "_Resamples":
        units: dict[str, int] = {}
        seeds: dict[int, int] = {}
        for observations in all_observations:
            for observation in observations:
                units.setdefault(observation.unit, len(units))
                seeds.setdefault(observation.seed, len(seeds))
        # Sorted, so that the order of the observations does not change the figures.
        units = {unit: i for i, unit in enumerate(sorted(units))}
        seeds = {seed: i for i, seed in enumerate(sorted(seeds))}
        generator = np.random.default_rng(self.seed)
        return _Resamples(
            units,
            seeds,
            _draws(generator, len(units), self.n_resamples),
            _draws(generator, len(seeds), self.n_resamples),
        )


@dataclass(frozen=True)
class _Resamples:
    """How often each unit and each seed was drawn: `[n_resamples, n_units]`, `[…, n_seeds]`."""

    units: dict[str, int]
    seeds: dict[int, int]
    unit_counts: Array
    seed_counts: Array

    def of(
        self, observations: Sequence[Observation], quantile: float | None
    ) -> tuple[float, Array]:
        """A statistic of the observations, and of each resample of them: `[n_resamples]`."""
        rows = np.array([self.units[observation.unit] for observation in observations])
        columns = np.array([self.seeds[observation.seed] for observation in observations])
        values = np.array([observation.value for observation in observations], dtype=np.float64)
        if not np.isfinite(values).all():
            raise InvalidInputError("a score is not finite; what cannot be told is None.")
        if quantile is None:
            return float(values.mean()), self._means(rows, columns, values)
        if not 0 <= quantile <= 1:
            raise InvalidInputError(f"the quantile must lie in [0, 1], not {quantile}.")
        return float(_quantile(values, np.ones_like(values), quantile)), np.array(
            [
                _quantile(values, unit[rows] * seed[columns], quantile)
                for unit, seed in zip(self.unit_counts, self.seed_counts, strict=True)
            ]
        )

    def _means(self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: Array) -> Array:
        totals = np.zeros((len(self.units), len(self.seeds)))
        numbers = np.zeros_like(totals)
        np.add.at(totals, (rows, columns), values)
        np.add.at(numbers, (rows, columns), 1.0)
        total = ((self.unit_counts @ totals) * self.seed_counts).sum(axis=1)
        number = ((self.unit_counts @ numbers) * self.seed_counts).sum(axis=1)
        means: Array = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
        return means


def _draws(generator: np.random.Generator, n: int, n_resamples: int) -> Array:
    """Counts of ``n`` draws with replacement from ``n`` elements, `[n_resamples, n]`."""
    if not n:
        return np.zeros((n_resamples, 0))
    return generator.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def _quantile(values: Array, weights: Array, quantile: float) -> float:
    """The smallest value with at least this share of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    if not cumulated.size or cumulated[-1] == 0:
        return float("nan")
    # Rounding must not push a quantile that falls on a value to the next one.
    at = int(np.searchsorted(cumulated, quantile * cumulated[-1] - 1e-9))
    drawn = np.flatnonzero(weights[order] > 0)
    return float(values[order][max(at, int(drawn[0]))])


def _averages(observations: Iterable[Observation]) -> dict[PairingKey, float]:
    """Mean of the samples of each prompt and seed; none where one of them is missing."""
    found: dict[PairingKey, list[float | None]] = {}
    for observation in observations:
        found.setdefault(observation.pairing_key, []).append(observation.value)
    return {
        at: sum(present) / len(present)
        for at, values in found.items()
        if len(present := [value for value in values if value is not None]) == len(values)
    }


def _n_missing(observations: Iterable[Observation]) -> int:
    return sum(observation.value is None for observation in observations)
