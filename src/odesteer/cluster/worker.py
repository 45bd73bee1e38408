"""Worker process: loads the model once and runs jobs; failures travel back as results."""

import pickle
import socket
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from odesteer.cluster.model_source import ModelSource
from odesteer.errors import ClusterError
from odesteer.version import __version__

if TYPE_CHECKING:
    import pyarrow

    from odesteer.models import SteeredModel

JobFunction = Callable[["SteeredModel", Any, "SharedObjects"], Any]
"""``function(model, job, shared)``; it must be importable from a module."""


class SharedObjects(Protocol):
    """Objects that several jobs use, by number."""

    def __getitem__(self, number: int) -> Any: ...


@dataclass(frozen=True)
class JobFailure:
    """An exception of a worker, to be raised in the calling process.

    Attributes:
        error: the exception, as it was raised.
        where: host name and traceback of the worker.
    """

    error: Exception
    where: str

    @classmethod
    def of(cls, error: Exception) -> "JobFailure":
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            picklable = pickle.loads(pickle.dumps(error))
        except Exception:
            picklable = ClusterError(f"{type(error).__name__}: {error}")
        return cls(picklable, f"on worker {socket.gethostname()}:\n{trace}")

    def raise_here(self) -> None:
        raise self.error from ClusterError(self.where)


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker.

    Attributes:
        task: the function of the jobs.
        source: the model.
        device: where it runs.
        threads: of torch.
        version: of odesteer, which must be the same everywhere.
        attempts: the most attempts at one job; each but the first follows the loss of a worker.
    """

    task: JobFunction
    source: ModelSource
    device: str
    threads: int
    version: str = __version__
    attempts: int = 3


class Worker:
    """A callable class for Ray Data's `map_batches`: one job is one batch.

    It never raises: an exception becomes the result of the job, so that it reaches the caller
    unchanged and Ray does not retry it.

    Parameters:
        config: see `WorkerConfig`.
        shared: object references, fetched by ``fetch`` when a job uses them.
        begin: counts the attempts at a job, see `AttemptCounter`.
    """

    def __init__(
        self,
        config: WorkerConfig,
        shared: list[Any],
        fetch: Callable[[Any], Any],
        begin: Callable[[int], int],
    ) -> None:
        self._config = config
        self._shared = _Fetched(shared, fetch)
        self._begin = begin
        self._failure: JobFailure | None = None
        try:
            self._lm = self._load()
        except Exception as error:
            self._failure = JobFailure.of(error)

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        number = batch["number"][0].as_py()
        return as_table(number, self._result(number, batch["content"][0].as_py()))

    def _load(self) -> "SteeredModel":
        import torch

        if self._config.version != __version__:
            raise ClusterError(
                f"this worker has odesteer {__version__}, and was called by"
                f" {self._config.version}; install the same version on every machine."
            )
        torch.set_num_threads(self._config.threads)
        return self._config.source.load(self._config.device)

    def _result(self, number: int, job: bytes) -> Any:
        if self._failure is not None:
            return self._failure
        try:
            attempt = self._begin(number)
            if attempt > self._config.attempts:
                raise ClusterError(
                    f"job {number} has cost {attempt - 1} workers their lives, most likely for"
                    " want of memory; use smaller batches or larger machines."
                )
            return self._config.task(self._lm, pickle.loads(job), self._shared)
        except Exception as error:
            return JobFailure.of(error)


class _Fetched:
    """Shared objects, fetched on first use and cached for later jobs."""

    def __init__(self, references: list[Any], fetch: Callable[[Any], Any]) -> None:
        self._get = lru_cache(maxsize=16)(lambda number: fetch(references[number]))

    def __getitem__(self, number: int) -> Any:
        return self._get(number)


def as_table(number: int, content: Any) -> "pyarrow.Table":
    """A job or its result as an Arrow table of one row."""
    import pyarrow

    # large_binary: an ordinary binary column holds two gigabytes at most.
    data = pyarrow.array([pickle.dumps(content)], type=pyarrow.large_binary())
    return pyarrow.table({"number": [number], "content": data})


class AttemptCounter:
    """Counts attempts at jobs, as a Ray actor that outlives the workers.

    Ray Data retries a job without limit when its worker dies. The count limits that, for jobs that
    kill their worker.
    """

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int]] = Counter()

    def begin(self, run: int, job: int) -> int:
        """Count one more attempt at a job of a run; returns their number."""
        self._begun[run, job] += 1
        return self._begun[run, job]
