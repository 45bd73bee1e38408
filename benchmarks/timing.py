"""Interleaved timing of alternatives in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over rounds, and the fastest and slowest round."""

    median: float
    fastest: float
    slowest: float


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, rounds: int = 7, least_seconds: float = 0.02
) -> dict[str, Timing]:
    """Time alternatives in turn, so that a drift of the machine's speed meets all alike.

    Each round repeats a call until ``least_seconds`` have passed; the first round is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start, n = time.perf_counter(), 0
            while time.perf_counter() - start < least_seconds or n == 0:
                call()
                n += 1
            seconds[name].append((time.perf_counter() - start) / n)
    return {
        name: Timing(statistics.median(times[1:]), min(times[1:]), max(times[1:]))
        for name, times in seconds.items()
    }
