"""One thread that generates, for requests that arrive one by one and are taken in batches."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

# How long a batch waits for more requests, in seconds.
_GATHERING = 0.02


@dataclass(frozen=True)
class BatchRequest:
    """A prompt, the options that it is generated with, and where its result goes."""

    prompt: Any
    options: tuple[tuple[str, Any], ...]
    result: "Future[Any]"


class BatchingThread:
    """Calls ``generate(prompts, options)`` in a thread of its own, one batch at a time.

    Requests with equal options that wait together become one batch of at most ``batch_size``. An
    exception goes to every request of its batch.
    """

    def __init__(
        self, generate: Callable[[Sequence[Any], dict[str, Any]], Sequence[Any]], batch_size: int
    ) -> None:
        self._generate = generate
        self._batch_size = batch_size
        self._waiting: queue.Queue[BatchRequest | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="odesteer-inspect", daemon=True)
        self._thread.start()

    def submit(self, prompt: Any, options: dict[str, Any]) -> "Future[Any]":
        """The result that will be there for a prompt."""
        result: Future[Any] = Future()
        self._waiting.put(BatchRequest(prompt, tuple(sorted(options.items())), result))
        return result

    def close(self) -> None:
        """End the thread when all requests are done."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        left: list[BatchRequest] = []
        closing = False
        while left or not closing:
            if not left:
                first = self._waiting.get()
                if first is None:
                    return
                left = [first]
            while len(left) < self._batch_size and not closing:
                try:
                    more = self._waiting.get(timeout=_GATHERING)
                except queue.Empty:
                    break
                closing = more is None
                left += [] if more is None else [more]
            options = left[0].options
            batch = [one for one in left if one.options == options][: self._batch_size]
            left = [one for one in left if one not in batch]
            self._finish([one for one in batch if one.result.set_running_or_notify_cancel()])

    def _finish(self, batch: Sequence[BatchRequest]) -> None:
        if not batch:
            return
        try:
            results = self._generate([one.prompt for one in batch], dict(batch[0].options))
        except BaseException as error:
            for one in batch:
                one.result.set_exception(error)
            return
        for one, result in zip(batch, results, strict=True):
            one.result.set_result(result)
