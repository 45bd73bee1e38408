"""Completions of a benchmark on workers: each batch is a job."""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import SharedObjects
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.evaluation.runner.completions import Completion, CompletionBatch, complete_batch
from odesteer.models import SteeredModel

Numbers = list[int]


class Completions:
    """Generates the completions of a benchmark on workers, see `BatchExecutor`."""

    def __init__(self, cluster: Cluster, source: ModelSource) -> None:
        self._cluster = cluster
        self._source = source

    def __call__(
        self, batches: Sequence[CompletionBatch]
    ) -> Iterator[tuple[list[Completion], float]]:
        """The completions of each batch, in order, and the seconds that they took."""
        # Specs hold their task with all its data, and steerers are large: each is sent once.
        specs = [spec for batch in batches for spec in batch.specs]
        shared: list[Any] = [specs]
        number_of: dict[int, int] = {}
        jobs: list[tuple[Numbers, Numbers]] = []
        first = 0
        for batch in batches:
            for steerer in batch.steerers:
                if id(steerer) not in number_of:
                    number_of[id(steerer)] = len(shared)
                    shared.append(steerer)
            numbers = [number_of[id(steerer)] for steerer in batch.steerers]
            jobs.append((list(range(first, first + len(batch.specs))), numbers))
            first += len(batch.specs)
        return self._cluster.map(complete, jobs, self._source, shared)


def complete(
    lm: SteeredModel, job: tuple[Numbers, Numbers], shared: SharedObjects
) -> tuple[list[Completion], float]:
    """One batch; shared are the list of all specs, then the steerers."""
    specs, steerers = job
    everything = shared[0]
    batch = CompletionBatch([everything[i] for i in specs], [shared[number] for number in steerers])
    began = time.perf_counter()
    return complete_batch(lm, batch, _scorer(lm)), time.perf_counter() - began


@lru_cache(maxsize=1)
def _scorer(lm: SteeredModel) -> PrefixScorer:
    """A worker has one model, and keeps its prompts from job to job as the runner does."""
    return PrefixScorer(lm)
