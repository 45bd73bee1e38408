"""How often each job was begun."""

from collections import Counter


class Attempts:
    """Counts, in a place that outlives any worker.

    A job during which its worker dies is begun again on another, without end as far as Ray Data
    is concerned. What has been counted here tells a job that kills from a worker that died.
    """

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int]] = Counter()

    def begin(self, run: int, job: int) -> int:
        """Count one more attempt at a job of a run; returns their number."""
        self._begun[run, job] += 1
        return self._begun[run, job]
