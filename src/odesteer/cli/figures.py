"""Figures and tables as people read them."""

import time


def seconds() -> float:
    """A clock that only goes forward."""
    return time.perf_counter()


def in_nats(value: float) -> str:
    """A value of the barrier, with its sign."""
    return f"{value:+.2f}"


def share(part: int, whole: int) -> float:
    """``part`` of ``whole``; 0 of nothing."""
    return part / whole if whole else 0.0
