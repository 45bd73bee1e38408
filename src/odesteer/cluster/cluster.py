"""A cluster: a pool of workers on Ray, and the mapping of jobs over them with Ray Data."""

import pickle
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any
from weakref import WeakSet

from typing_extensions import Self

from odesteer.cluster.connection import connected, require_ray
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import (
    AttemptCounter,
    JobFailure,
    JobFunction,
    Worker,
    WorkerConfig,
    as_table,
)
from odesteer.errors import ClusterError, InvalidInputError
from odesteer.untrusted import is_integer


class Cluster:
    """Workers on Ray, each a process with its own copy of the model; a context manager.

    Without an ``address`` Ray is started on this machine and stopped on exit; a Ray that runs
    already is used and left running.

    Parameters:
        workers: how many.
        address: of a running cluster that this machine belongs to, ``host:port`` or ``auto``.
        threads: CPUs for each worker, and threads that torch computes with there.
        attempts: the most attempts at one job; each but the first follows the loss of a worker.

    Raises `InvalidInputError` for numbers below one; on entering, `MissingDependencyError`
    without Ray and `ClusterError` for a cluster that cannot be reached or is too small.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        address: str | None = None,
        threads: int = 1,
        attempts: int = 3,
    ) -> None:
        for name, value in (("workers", workers), ("threads", threads), ("attempts", attempts)):
            if not is_integer(value, 1):
                raise InvalidInputError(f"{name} must be a positive integer, not {value!r}.")
        self.workers = workers
        self.address = address
        self.threads = threads
        self.attempts = attempts
        self._open: ExitStack | None = None
        self._runs: WeakSet[Generator[Any, None, None]] = WeakSet()
        self._n_runs = 0
        self._counter: Any = None

    def __str__(self) -> str:
        return f"{self.workers} worker{'s' * (self.workers > 1)} on {self.address or 'Ray'}"

    def __enter__(self) -> Self:
        if self._open is not None:
            raise ClusterError("this cluster is in use already; make another Cluster.")
        # Ray Data wants a CPU beside those of the workers.
        needed = self.workers * self.threads + 1
        with ExitStack() as stack:
            stack.enter_context(connected(self.address, needed))
            self._check_size("CPU", needed, f"{self.workers * self.threads} for workers, 1 for Ray")
            # One counter for all runs, since it takes a while to start its process.
            self._counter = require_ray().remote(AttemptCounter).options(num_cpus=0).remote()
            stack.callback(self._end_runs)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._open is not None:
            stack, self._open = self._open, None
            stack.close()

    def map(
        self,
        task: JobFunction,
        jobs: Sequence[Any],
        source: ModelSource,
        shared: Sequence[Any] = (),
    ) -> Iterator[Any]:
        """``task(model, job, shared)`` for each of the jobs, in their order, as they get done.

        The workers load the model when the first result is requested, and end after the last one
        or when the iterator is closed. A job whose worker is lost is retried on another. Raises
        the error of a task, and `ClusterError` if there are no workers.
        """
        if self._open is None:
            raise ClusterError("use the cluster in a `with` block: with Cluster(...) as cluster.")
        run = self._run(task, list(jobs), source, list(shared))
        self._runs.add(run)
        return run

    def _run(
        self, task: JobFunction, jobs: list[Any], source: ModelSource, shared: list[Any]
    ) -> Generator[Any, None, None]:
        if not jobs:
            return
        ray = require_ray()
        gpus = self._gpus(source.device)
        # A worker sees no GPU but its own.
        device = "cuda" if gpus else source.device or "cpu"
        config = WorkerConfig(task, source, device, self.threads, attempts=self.attempts)
        self._n_runs += 1
        dataset = ray.data.from_arrow([as_table(i, job) for i, job in enumerate(jobs)])
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False
        done = dataset.map_batches(
            Worker,
            fn_constructor_args=(
                config,
                [ray.put(one) for one in shared],
                ray.get,
                _AttemptsOfRun(self._counter, self._n_runs),
            ),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(jobs))),
            num_cpus=self.threads,
            num_gpus=gpus,
        )
        batches = iter(done.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0))
        with closing(batches):
            yield from self._results(batches, len(jobs))

    def _results(self, batches: Iterator[Any], n_jobs: int) -> Iterator[Any]:
        ray = require_ray()
        for expected in range(n_jobs):
            try:
                batch = next(batches)
            except (ray.exceptions.RayError, StopIteration) as error:
                raise ClusterError(
                    f"the workers were lost ({_reason(error)}). odesteer, and what it imports, must"
                    " be installed on every machine of the cluster, with memory for the model. The"
                    " logs of Ray say more (by default in /tmp/ray)."
                ) from error
            number = batch["number"][0].as_py()
            if number != expected:
                raise ClusterError(f"job {number} came back in place of job {expected}.")
            result = pickle.loads(batch["content"][0].as_py())
            if isinstance(result, JobFailure):
                result.raise_here()
            yield result

    def _end_runs(self) -> None:
        """Close open runs while Ray still runs; closing them later would start Ray again."""
        for run in list(self._runs):
            run.close()
        self._counter = None

    def _gpus(self, device: str | None) -> int:
        """GPUs for each worker."""
        if device is None:
            return int(self._resources().get("GPU", 0) >= self.workers)
        if not device.startswith("cuda"):
            return 0
        self._check_size("GPU", self.workers, "one for each worker")
        return 1

    def _check_size(self, what: str, needed: int, why: str) -> None:
        there = int(self._resources().get(what, 0))
        if there < needed:
            raise ClusterError(
                f"the cluster has {there} {what}s and {needed} are needed ({why}); ask for fewer"
                " workers, or add machines."
            )

    def _resources(self) -> dict[str, float]:
        found: dict[str, float] = require_ray().cluster_resources()
        return found


class _AttemptsOfRun:
    """Counts the attempts at the jobs of one run from inside a worker."""

    def __init__(self, counter: Any, run: int) -> None:
        self._counter = counter
        self._run = run

    def __call__(self, job: int) -> int:
        number: int = require_ray().get(self._counter.begin.remote(self._run, job))
        return number


def _reason(error: BaseException) -> str:
    """The last line of an error of Ray, which has the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")
