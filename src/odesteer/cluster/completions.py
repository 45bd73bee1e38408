"""Completions of a benchmark, a batch of rows a job."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import Shared
from odesteer.evaluation.runner.completions import Batch, Written, attempt
from odesteer.models import SteeredModel

Numbers = list[int]


class Completions:
    """Writes the completions of a benchmark on workers, see `Elsewhere`."""

    def __init__(self, cluster: Cluster, source: ModelSource) -> None:
        self._cluster = cluster
        self._source = source

    def __call__(self, batches: Sequence[Batch]) -> Iterator[tuple[list[Written], float]]:
        """The completions of each batch, in order, and the seconds that they took."""
        # Rows hold their task with all its data, and steerers are large: each travels once.
        rows = [row for batch in batches for row in batch.rows]
        shared: list[Any] = [rows]
        number_of: dict[int, int] = {}
        jobs: list[tuple[Numbers, Numbers]] = []
        first = 0
        for batch in batches:
            for steerer in batch.steerers:
                if id(steerer) not in number_of:
                    number_of[id(steerer)] = len(shared)
                    shared.append(steerer)
            numbers = [number_of[id(steerer)] for steerer in batch.steerers]
            jobs.append((list(range(first, first + len(batch.rows))), numbers))
            first += len(batch.rows)
        return self._cluster.map(complete, jobs, self._source, shared)


def complete(
    lm: SteeredModel, job: tuple[Numbers, Numbers], shared: Shared
) -> tuple[list[Written], float]:
    """One batch; shared are all rows, and behind them the steerers."""
    rows, steerers = job
    everything = shared[0]
    batch = Batch([everything[i] for i in rows], [shared[number] for number in steerers])
    began = time.perf_counter()
    return attempt(lm, batch), time.perf_counter() - began
