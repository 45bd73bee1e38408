"""Scheduler: the thread that runs the model, and the queue of waiting sequences."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

from odesteer.errors import OdesteerError
from odesteer.models import SteeredModel
from odesteer.serving.engine.batch import Batch
from odesteer.serving.engine.sequence import SequenceState, fail_all

_log = logging.getLogger("odesteer.serving")

_NEW_WEIGHT = 0.1
"""Weight of a new duration in the moving average of the seconds that a text takes."""


class EndedError(OdesteerError, RuntimeError):
    """The thread that runs the model has ended."""


class Scheduler:
    """Generates in one thread, step by step; sequences join and leave between steps.

    All methods may be called from any thread.

    Attributes:
        n_running: number of sequences in the batch.
        seconds_per_text: from submission to the end, a moving average.
    """

    def __init__(
        self, lm: SteeredModel, pad_token: int, max_batch: int, *, chunk: int, max_tokens: int
    ) -> None:
        self._lm = lm
        self._batch = Batch(lm, pad_token, chunk=chunk, max_tokens=max_tokens)
        self._max_batch = max_batch
        self._waiting: deque[SequenceState] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[SteeredModel], Any]]] = deque()
        self._has_work = threading.Condition()
        self._closing = False
        self._ended = False
        # Torch's number of threads is set anew in each thread.
        self._n_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="odesteer-engine", daemon=True)
        self._heartbeat: float | None = None
        self.n_running = 0
        self.seconds_per_text = 1.0

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Finish all sequences, waiting ones too, and end.

        Returns when the thread has ended, or False after ``timeout`` seconds.
        """
        with self._has_work:
            self._closing = True
            self._has_work.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self.is_alive

    @property
    def n_waiting(self) -> int:
        """Number of sequences that have not joined the batch."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the thread last began or ended a step; 0 while it waits for work."""
        heartbeat = self._heartbeat
        return 0.0 if heartbeat is None else time.monotonic() - heartbeat

    def add(self, sequences: list[SequenceState], max_queue: int) -> bool:
        """Queue all of the sequences, or none if the queue would be longer than ``max_queue``.

        Raises `EndedError` when the thread has ended.
        """
        with self._has_work:
            self._check_alive()
            if len(self._waiting) + len(sequences) > max_queue:
                # Cancelled sequences take no place in the queue.
                self._waiting = deque(each for each in self._waiting if not each.stream.cancelled)
                if len(self._waiting) + len(sequences) > max_queue:
                    return False
            self._waiting += sequences
            self._has_work.notify()
        return True

    def call(self, function: Callable[[SteeredModel], Any], max_queue: int) -> "Future[Any] | None":
        """Run a function of the model between two steps; None if ``max_queue`` of them wait."""
        future: Future[Any] = Future()
        with self._has_work:
            self._check_alive()
            if len(self._calls) >= max_queue:
                return None
            self._calls.append((future, function))
            self._has_work.notify()
        return future

    def _check_alive(self) -> None:
        if self._ended:
            raise EndedError("the engine has ended.")

    def _run(self) -> None:
        torch.set_num_threads(self._n_threads)
        try:
            while self._run_once():
                pass
        finally:
            with self._has_work:
                self._ended = True
                for future, _ in self._calls:
                    future.cancel()
                fail_all([*self._batch.sequences, *self._waiting], "the engine has ended.")

    def _run_once(self) -> bool:
        """Wait for work, and do one round of it; False when the thread is to end."""
        with self._has_work:
            while not (self._waiting or self._calls or self._batch.sequences or self._closing):
                self._heartbeat = None
                self._has_work.wait()
            self._heartbeat = time.monotonic()
            calls = list(self._calls)
            self._calls.clear()
            self._take_waiting()
            if self._closing and not (calls or self._batch.sequences):
                return False
        for future, function in calls:
            _run_call(future, function, self._lm)
            self._heartbeat = time.monotonic()
        self._step()
        return True

    def _take_waiting(self) -> None:
        """Let the next sequences of the queue join the batch, as many as there is room for."""
        batch = self._batch
        n_free = self._max_batch - batch.n_sequences if batch.accepts_sequences else 0
        while self._waiting and n_free > 0:
            sequence = self._waiting[0]
            if not sequence.stream.cancelled:
                if not batch.has_room(len(sequence.tokens)):
                    break
                batch.add(sequence)
                n_free -= 1
            self._waiting.popleft()

    def _step(self) -> None:
        batch = self._batch
        sequences = batch.sequences
        for sequence in sequences:
            sequence.finished |= sequence.stream.cancelled
        try:
            batch.step()
        except Exception as error:  # none that a forward pass raises
            _log.error("a step failed", exc_info=error)
            fail_all(sequences)
            batch.clear()
        self.n_running = batch.n_sequences
        for sequence in sequences:
            if sequence.finished and not sequence.stream.cancelled:
                self.seconds_per_text += _NEW_WEIGHT * (sequence.age - self.seconds_per_text)


def _run_call(
    future: "Future[Any]", function: Callable[[SteeredModel], Any], lm: SteeredModel
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function(lm))
    except Exception as error:
        future.set_exception(error)
