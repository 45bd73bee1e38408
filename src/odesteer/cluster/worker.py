"""What runs on a worker: a model that is loaded once, and jobs done with it."""

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

Task = Callable[["SteeredModel", Any, "Shared"], Any]
"""Does a job with a model, given what the jobs share. A function of a module, so that workers can
import it."""


class Shared(Protocol):
    """Objects that several jobs need, by number."""

    def __getitem__(self, number: int) -> Any: ...


@dataclass(frozen=True)
class Failure:
    """An exception on its way home.

    Attributes:
        error: the exception, as it was raised.
        where: name of the machine, and the traceback there.
    """

    error: Exception
    where: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            alike = pickle.loads(pickle.dumps(error))
        except Exception:
            alike = ClusterError(f"{type(error).__name__}: {error}")
        return cls(alike, f"on worker {socket.gethostname()}:\n{trace}")

    def raise_here(self) -> None:
        raise self.error from ClusterError(self.where)


@dataclass(frozen=True)
class Orders:
    """What a worker is told when it starts.

    Attributes:
        task: what to do with each job.
        source: the model.
        device: where it runs.
        threads: of torch.
        version: of odesteer, which must be the same everywhere.
        attempts: how often one job may be begun; each time but the first, a worker was lost.
    """

    task: Task
    source: ModelSource
    device: str
    threads: int
    version: str = __version__
    attempts: int = 3


class Worker:
    """A worker, as Ray Data's `map_batches` wants it: one job is one batch.

    It never raises: what goes wrong is the outcome of the job, so that it comes home as it is
    and Ray does not try again what will fail again.

    Parameters:
        orders: what to do.
        shared: handles of what jobs share, fetched by ``fetch`` when a job asks for it.
        begin: counts the attempts at a job, see `Attempts`.
    """

    def __init__(
        self,
        orders: Orders,
        shared: list[Any],
        fetch: Callable[[Any], Any],
        begin: Callable[[int], int],
    ) -> None:
        self._orders = orders
        self._shared = _Fetched(shared, fetch)
        self._begin = begin
        self._failure: Failure | None = None
        try:
            self._lm = self._load()
        except Exception as error:
            self._failure = Failure.of(error)

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        number = batch["number"][0].as_py()
        return table(number, self._outcome(number, batch["content"][0].as_py()))

    def _load(self) -> "SteeredModel":
        import torch

        if self._orders.version != __version__:
            raise ClusterError(
                f"this worker has odesteer {__version__}, and was called by"
                f" {self._orders.version}; install the same version on every machine."
            )
        torch.set_num_threads(self._orders.threads)
        return self._orders.source.load(self._orders.device)

    def _outcome(self, number: int, job: bytes) -> Any:
        if self._failure is not None:
            return self._failure
        try:
            attempt = self._begin(number)
            if attempt > self._orders.attempts:
                raise ClusterError(
                    f"job {number} has cost {attempt - 1} workers their lives, most likely for"
                    " want of memory; use smaller batches or larger machines."
                )
            return self._orders.task(self._lm, pickle.loads(job), self._shared)
        except Exception as error:
            return Failure.of(error)


class _Fetched:
    """Fetches what jobs share when it is asked for, and keeps some of it for the next job."""

    def __init__(self, handles: list[Any], fetch: Callable[[Any], Any]) -> None:
        self._get = lru_cache(maxsize=16)(lambda number: fetch(handles[number]))

    def __getitem__(self, number: int) -> Any:
        return self._get(number)


def table(number: int, content: Any) -> "pyarrow.Table":
    """A job, or its outcome, as one row."""
    import pyarrow

    # Large: a column of ordinary binaries holds no more than two gigabytes.
    data = pyarrow.array([pickle.dumps(content)], type=pyarrow.large_binary())
    return pyarrow.table({"number": [number], "content": data})


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
