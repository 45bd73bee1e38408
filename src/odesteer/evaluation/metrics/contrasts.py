"""Tests of contrasts that are declared beforehand: sign-flip test by prompt, Holm's correction."""

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from odesteer.errors import InvalidInputError
from odesteer.evaluation.metrics.bootstrap import Observation, paired, unit_means

Name = TypeVar("Name")

N_FLIPS = 9999


def p_value(a: Iterable[Observation], b: Iterable[Observation], seed: int = 0) -> float | None:
    """Two-sided p-value of no difference: the sign of each prompt's mean difference is flipped.

    All sign flips of few prompts, `N_FLIPS` at random of many (`scipy.stats.permutation_test`).
    None where nothing is paired.
    """
    from scipy.stats import permutation_test

    differences, _ = paired(list(a), list(b))
    if not differences:
        return None
    means = unit_means(differences)
    means = means[means != 0]  # no sign to flip
    if means.size < 2:  # either sign of one prompt is as extreme
        return 1.0

    def statistic(values: np.ndarray, axis: int = -1) -> np.ndarray:
        found: np.ndarray = values.sum(axis=axis)
        return found

    found = permutation_test(
        (means,),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_FLIPS,
        batch=max(1, 4_000_000 // means.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """p-values corrected for their number (Holm 1979, "A simple sequentially rejective multiple
    test procedure"): the chance of a single false positive among all of them is bounded."""
    corrected: dict[Name, float] = {}
    least = 0.0
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        if not 0 <= p <= 1:
            raise InvalidInputError(f"the p-value of {name} is {p}; it must lie in [0, 1].")
        least = max(least, min(1.0, (len(p_values) - i) * p))
        corrected[name] = least
    return corrected


def resolution(n_prompts: int, deviation: float = 0.5, confidence: float = 0.95) -> float:
    """Half the width of the interval of a mean over ``n_prompts``: what such a size resolves.

    ``deviation`` is the standard deviation between prompts; ½ is the largest that a share or a win
    rate has. 500 prompts resolve ±.044.
    """
    from scipy.stats import norm

    if n_prompts < 1:
        raise InvalidInputError(f"n_prompts must be positive, not {n_prompts}.")
    return float(norm.ppf((1 + confidence) / 2)) * deviation / math.sqrt(n_prompts)
