"""The thread that runs the model."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import torch

from odesteer.errors import OdesteerError
from odesteer.models import SteeredModel
from odesteer.serving.engine.batch import Batch
from odesteer.serving.engine.sequence import SequenceState

_log = logging.getLogger("odesteer.serving")

_WEIGHT = 0.1
"""Of each text in the moving average of how long one takes."""


class EndedError(OdesteerError, RuntimeError):
    """The thread that runs the model has ended."""


class Scheduler:
    """Writes texts in one thread, step by step; rows come and go between the steps.

    All methods may be called from any thread.
    """

    def __init__(self, lm: SteeredModel, pad: int, max_batch: int) -> None:
        self._lm = lm
        self._batch = Batch(lm, pad)
        self._max_batch = max_batch
        self._waiting: deque[SequenceState] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[SteeredModel], Any]]] = deque()
        self._work = threading.Condition()
        self._closing = False
        self._ended = False
        # Threads count for themselves how many threads torch may use.
        self._n_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="odesteer-engine", daemon=True)
        self.n_running = 0
        self.seconds = 1.0  # that a text takes to be written, a moving average

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """FinishReason what was asked for, and end. Returns when it has ended."""
        with self._work:
            self._closing = True
            self._work.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def add(self, rows: list[SequenceState], room: int) -> bool:
        """Queue all of the rows, or none where the queue would be longer than ``room``.

        Raises `EndedError` when it has ended.
        """
        with self._work:
            self._check()
            if len(self._waiting) + len(rows) > room:
                # Who went away while waiting takes no place.
                self._waiting = deque(row for row in self._waiting if not row.stream.cancelled)
                if len(self._waiting) + len(rows) > room:
                    return False
            self._waiting += rows
            self._work.notify()
        return True

    def call(self, function: Callable[[SteeredModel], Any], room: int) -> "Future[Any] | None":
        """Run a function between two steps; None where ``room`` of them wait already."""
        future: Future[Any] = Future()
        with self._work:
            self._check()
            if len(self._calls) >= room:
                return None
            self._calls.append((future, function))
            self._work.notify()
        return future

    def _check(self) -> None:
        if self._ended:
            raise EndedError("the engine has ended.")

    def _run(self) -> None:
        torch.set_num_threads(self._n_threads)
        try:
            while self._turn():
                pass
        finally:
            with self._work:
                self._ended = True
                for future, _ in self._calls:
                    future.cancel()
                _fail([*self._batch.rows, *self._waiting], "the engine has ended.")

    def _turn(self) -> bool:
        """Wait for work, and do some; False when it is to end."""
        with self._work:
            while not (self._waiting or self._calls or self._batch.rows or self._closing):
                self._work.wait()
            calls = list(self._calls)
            self._calls.clear()
            newcomers = self._newcomers()
            if self._closing and not (calls or newcomers or self._batch.rows):
                return False
        for future, function in calls:
            _answer(future, function, self._lm)
        self._step(newcomers)
        return True

    def _newcomers(self) -> list[SequenceState]:
        """The rows that are next in the queue, as many as there is room for."""
        batch = self._batch
        room = self._max_batch - len(batch.rows) if batch.is_open else 0
        rows: list[SequenceState] = []
        while self._waiting and len(rows) < room:
            row = self._waiting.popleft()
            if not row.stream.cancelled:
                rows.append(row)
        if batch.merges:
            n = batch.prefixes([row.job.prompt for row in rows])
            self._waiting.extendleft(reversed(rows[n:]))
            rows = rows[:n]
        return rows

    def _step(self, newcomers: list[SequenceState]) -> None:
        batch = self._batch
        for row in batch.rows:
            row.finished |= row.stream.cancelled
        writing = [*batch.rows, *newcomers]
        try:
            if newcomers:
                batch.join(newcomers)
        except Exception as error:
            _log.error("prompts could not be read", exc_info=error)
            _fail(newcomers, f"{type(error).__name__}: {error}")
        try:
            batch.step()
        except Exception as error:
            _log.error("a step failed", exc_info=error)
            _fail(batch.rows, f"{type(error).__name__}: {error}")
            batch.clear()
        self.n_running = len(batch.rows)
        for row in writing:
            if row.finished and not row.stream.cancelled:
                self.seconds += _WEIGHT * (row.seconds - self.seconds)


def _answer(
    future: "Future[Any]", function: Callable[[SteeredModel], Any], lm: SteeredModel
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function(lm))
    except Exception as error:
        future.set_exception(error)


def _fail(rows: Iterable[SequenceState], reason: str) -> None:
    for row in rows:
        if not row.finished:
            row.fail(reason)
