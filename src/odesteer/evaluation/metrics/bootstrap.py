"""Paired bootstrap: means, quantiles and their differences, with confidence intervals.

Prompts are resampled with replacement, each with all that was written for it: every seed, sample
and prompt of its group. What is written for one prompt is not independent, and more seeds do not
make more prompts. Intervals are BCa, bias-corrected and accelerated (Efron 1987, "Better bootstrap
confidence intervals", by `scipy.stats.bootstrap`); of quantiles, percentiles. They cover a new
draw of prompts under the same seeds. Where almost all of a yes-or-no score are alike, a bootstrap
has nothing to resample: the interval is exact then (Clopper & Pearson 1934), and that of a
difference is made of two exact ones (Newcombe 1998, method 10).
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

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


FEW = 5
"""Fewer prompts than this with the rarer of two scores are too few to resample."""
_MOST_NUMBERS = 4_000_000  # of resamples in memory at a time


@dataclass(frozen=True)
class PairedBootstrap:
    """Paired bootstrap over prompts.

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

        Observations of one unit are resampled together.
        """
        found = {}
        for name, observations in methods.items():
            read = list(observations)
            present = [observation for observation in read if observation.value is not None]
            found[name] = self._estimate(present, len(read) - len(present), quantile)
        return found

    def differences(
        self, methods: Mapping[str, Iterable[Observation]], quantile: float | None = None
    ) -> dict[tuple[str, str], Estimate]:
        """First minus second, for each pair of methods in the order given.

        Of means: over what both have by unit, seed and key (several samples of one are averaged);
        the rest counts as missing. Of a ``quantile``: the difference of the two quantiles.
        """
        read = {name: list(observations) for name, observations in methods.items()}
        return {
            (a, b): self._difference(read[a], read[b], quantile) for a, b in combinations(read, 2)
        }

    def _difference(
        self, a: Sequence[Observation], b: Sequence[Observation], quantile: float | None
    ) -> Estimate:
        observations, n_missing = paired(a, b)
        if quantile is None:
            yes_or_no = {one.value for one in (*a, *b)} <= {0.0, 1.0, None}
            return self._estimate(observations, n_missing, None, "gains" if yes_or_no else "")
        if not observations:
            return Estimate(None, None, None, 0, n_missing)
        kept = {observation.pairing_key for observation in observations}
        sides = [[one for one in side if one.pairing_key in kept] for side in (a, b)]
        units = sorted({one.unit for one in sides[0]})
        first, second = (_Quantile(side, units, quantile) for side in sides)
        resampled = self._resampled(len(units), lambda drawn: first(drawn) - second(drawn))
        low, high = self._percentiles(resampled)
        return Estimate(first() - second(), low, high, len(observations), n_missing)

    def _estimate(
        self,
        present: Sequence[Observation],
        n_missing: int,
        quantile: float | None,
        of: str = "scores",
    ) -> Estimate:
        """``of`` is what the values are: scores, gains of yes-or-no scores, or "" for others."""
        if not present:
            return Estimate(None, None, None, 0, n_missing)
        units = sorted({observation.unit for observation in present})
        values = _values(present)
        if quantile is None:
            low, high = self._interval(present, units, values, of)
            return Estimate(float(values.mean()), low, high, len(present), n_missing)
        statistic = _Quantile(present, units, quantile)
        low, high = self._percentiles(self._resampled(len(units), statistic))
        return Estimate(statistic(), low, high, len(present), n_missing)

    def _interval(
        self,
        present: Sequence[Observation],
        units: Sequence[str],
        values: Array,
        of: str,
    ) -> tuple[float | None, float | None]:
        """The interval of a mean; None for a single prompt of which nothing else is known."""
        totals, numbers = _by_unit(present, units, values)
        distinct = set(np.unique(values).tolist())
        if of == "gains" and distinct <= {-1.0, 0.0, 1.0}:
            more, less = values > 0, values < 0
            if _is_rare(present, more) and _is_rare(present, less):
                return self._difference_of_shares(more.mean(), less.mean(), len(units))
        if (
            of == "scores"
            and distinct <= {0.0, 1.0}
            and (_is_rare(present, values > 0) or _is_rare(present, values < 1))
        ):
            return self._exact(float(values.mean()), len(units))
        if len(units) < 2:
            return None, None
        if np.ptp(totals / numbers) == 0:
            return float(values.mean()), float(values.mean())
        return self._bca(totals, numbers)

    def _bca(self, totals: Array, numbers: Array) -> tuple[float, float]:
        from scipy import stats

        def mean(totals: Array, numbers: Array, axis: int = -1) -> Any:
            return totals.sum(axis=axis) / numbers.sum(axis=axis)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said again by what is done about it
            found = stats.bootstrap(
                (totals, numbers),
                mean,
                paired=True,
                vectorized=True,
                n_resamples=self.n_resamples,
                batch=max(1, _MOST_NUMBERS // len(totals)),
                confidence_level=self.confidence,
                method="BCa",
                rng=np.random.default_rng(self.seed),
            )
        low, high = found.confidence_interval
        if math.isnan(low) or math.isnan(high):  # two prompts, for one, have no acceleration
            return self._percentiles(found.bootstrap_distribution)
        return float(low), float(high)

    def _exact(self, share: float, n: int) -> tuple[float, float]:
        """Clopper and Pearson's interval of a share of ``n`` prompts."""
        from scipy.stats import beta

        k, tail = share * n, (1 - self.confidence) / 2
        low = 0.0 if k <= 0 else float(beta.ppf(tail, k, n - k + 1))
        high = 1.0 if k >= n else float(beta.ppf(1 - tail, k + 1, n - k))
        return low, high

    def _difference_of_shares(self, more: float, less: float, n: int) -> tuple[float, float]:
        """Of a share that gains less a share that loses, each with its exact interval."""
        (low_more, high_more), (low_less, high_less) = (
            self._exact(float(share), n) for share in (more, less)
        )
        value = float(more - less)
        down = math.hypot(more - low_more, high_less - less)
        up = math.hypot(high_more - more, less - low_less)
        return max(value - down, -1.0), min(value + up, 1.0)

    def _resampled(self, n_units: int, statistic: Any) -> Array:
        """A statistic of each resample, given how often each unit was drawn."""
        generator = np.random.default_rng(self.seed)
        shares = np.full(n_units, 1 / n_units)
        return np.array(
            [
                statistic(generator.multinomial(n_units, shares).astype(np.float64))
                for _ in range(self.n_resamples)
            ]
        )

    def _percentiles(self, resampled: Array) -> tuple[float, float]:
        # Resamples that drew none of the scores have no statistic.
        drawn = resampled[~np.isnan(resampled)]
        if not drawn.size:
            return float("nan"), float("nan")
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return float(low), float(high)


class _Quantile:
    """A quantile of observations whose units count as often as they were drawn."""

    def __init__(
        self, present: Sequence[Observation], units: Sequence[str], quantile: float
    ) -> None:
        if not 0 <= quantile <= 1:
            raise InvalidInputError(f"the quantile must lie in [0, 1], not {quantile}.")
        self._quantile = quantile
        self._values = _values(present)
        self._rows = _rows(present, units)

    def __call__(self, drawn: Array | None = None) -> float:
        weights = np.ones_like(self._values) if drawn is None else drawn[self._rows]
        return _quantile(self._values, weights, self._quantile)


def paired(a: Iterable[Observation], b: Iterable[Observation]) -> tuple[list[Observation], int]:
    """The differences of what both have by unit, seed and key, and how many only one has."""
    first, second = _averages(a), _averages(b)
    shared = [at for at in first if at in second]
    keys = {observation.pairing_key for observation in (*a, *b)}
    found = [Observation(at[0], at[1], first[at] - second[at], at[2]) for at in shared]
    return found, len(keys) - len(shared)


def unit_means(present: Iterable[Observation]) -> Array:
    """The mean of each unit's scores that are not missing, `[n_units]`, units sorted."""
    known = [observation for observation in present if observation.value is not None]
    units = sorted({observation.unit for observation in known})
    totals, numbers = _by_unit(known, units, _values(known))
    means: Array = totals / numbers
    return means


def _by_unit(
    present: Sequence[Observation], units: Sequence[str], values: Array
) -> tuple[Array, Array]:
    """Sum and number of the values of each unit."""
    rows = _rows(present, units)
    totals: Array = np.bincount(rows, values, minlength=len(units)).astype(np.float64)
    return totals, np.bincount(rows, minlength=len(units)).astype(np.float64)


def _rows(present: Sequence[Observation], units: Sequence[str]) -> NDArray[np.int64]:
    place = {unit: i for i, unit in enumerate(units)}
    return np.array([place[observation.unit] for observation in present], dtype=np.int64)


def _values(present: Sequence[Observation]) -> Array:
    values = np.array([observation.value for observation in present], dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidInputError("a score is not finite; what cannot be told is None.")
    return values


def _is_rare(present: Sequence[Observation], chosen: NDArray[np.bool_]) -> bool:
    """Whether fewer than `FEW` prompts have one of these scores."""
    units = {one.unit for one, is_chosen in zip(present, chosen, strict=True) if is_chosen}
    return len(units) < FEW


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
