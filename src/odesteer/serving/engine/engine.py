"""The engine: requests are submitted on the event loop, and run by the scheduler's thread."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from odesteer.errors import OdesteerError
from odesteer.models import SteeredModel
from odesteer.models.tokens.special_tokens import pad_token_id, stop_token_ids
from odesteer.serving.engine.grammar import JsonGrammars, JsonMatcher
from odesteer.serving.engine.output import OutputStream
from odesteer.serving.engine.request import GenerationRequest
from odesteer.serving.engine.scheduler import Scheduler
from odesteer.serving.engine.sequence import SequenceState
from odesteer.serving.engine.steering import sequence_steerers
from odesteer.serving.steerers import SteererRegistry

T = TypeVar("T")

_CPU_CHUNK, _CHUNK = 64, 512


class BusyError(OdesteerError, RuntimeError):
    """The queue is full.

    Attributes:
        retry_after: seconds after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Engine:
    """Generates texts with a steered model, many at a time.

    Parameters:
        lm: the model.
        model_id: what requests call it.
        max_batch: the most texts that run at a time.
        max_queue: the most that wait.
        max_batch_tokens: the most tokens that run together, padding included.
        prefill_chunk: the most tokens of prompts that are computed between two decoding steps; by
            default 64 on a CPU and 512 on an accelerator, about the cost of a step.

    Attributes:
        steerers: what it can be steered by, `RegisteredSteerer` objects by name.
    """

    def __init__(
        self,
        lm: SteeredModel,
        model_id: str,
        *,
        max_batch: int = 64,
        max_queue: int = 256,
        max_batch_tokens: int = 65536,
        prefill_chunk: int | None = None,
    ) -> None:
        self.lm = lm
        self.model_id = model_id
        self.steerers = SteererRegistry(lm)
        self.max_batch = max_batch
        self.max_queue = max_queue
        self._eos_tokens = frozenset(stop_token_ids(lm.model))
        self._grammars = JsonGrammars(lm.tokenizer, self.vocabulary)
        self._scheduler = Scheduler(
            lm,
            pad_token_id(lm.tokenizer, lm.model),
            max_batch,
            chunk=prefill_chunk or (_CPU_CHUNK if lm.device.type == "cpu" else _CHUNK),
            max_tokens=max_batch_tokens,
        )

    def start(self) -> None:
        """Start the scheduler's thread."""
        self._scheduler.start()

    async def close(self, timeout: float | None = None) -> bool:
        """Finish all texts, and end; False if it has not ended after ``timeout`` seconds."""
        return await asyncio.to_thread(self._scheduler.close, timeout)

    @property
    def is_alive(self) -> bool:
        return self._scheduler.is_alive

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the model last began or ended a step; 0 while there is nothing to do."""
        return self._scheduler.heartbeat_age

    @property
    def n_waiting(self) -> int:
        return self._scheduler.n_waiting

    @property
    def n_running(self) -> int:
        return self._scheduler.n_running

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the model knows."""
        embedding = self.lm.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    def submit(
        self, requests: Sequence[GenerationRequest], *, at_end: bool = False
    ) -> list[OutputStream]:
        """Queue all of the requests or, with `BusyError`, none. Called on the event loop.

        Output comes token by token or, with ``at_end``, all at once, which is cheaper. Raises
        `InvalidInputError` for steerers that do not exist, amounts that they do not have, and
        schemas that cannot be followed.
        """
        sequences = [
            SequenceState(
                request,
                OutputStream(at_end=at_end),
                [*sequence_steerers(request.steering, self.steerers)],
                self.lm.tokenizer,
                self._eos_tokens,
                self.lm.device,
                self._grammar(request),
            )
            for request in requests
        ]
        if not self._scheduler.add(sequences, self.max_queue):
            raise self._busy()
        return [sequence.stream for sequence in sequences]

    def _grammar(self, request: GenerationRequest) -> JsonMatcher | None:
        schema = request.sampling.json_schema
        return None if schema is None else self._grammars.matcher(schema)

    async def call(self, function: Callable[[SteeredModel], T]) -> T:
        """Run a function of the model between two steps, without steering; returns its result.

        Raises `BusyError`, and whatever the function raises.
        """
        future = self._scheduler.call(function, self.max_queue)
        if future is None:
            raise self._busy()
        result: T = await asyncio.wrap_future(future)
        return result

    def _busy(self) -> BusyError:
        rounds = (self.n_waiting + self.n_running) / self.max_batch
        seconds = min(max(math.ceil(rounds * self._scheduler.seconds_per_text), 1), 60)
        return BusyError(
            f"{self.n_waiting} texts wait already, and the queue holds {self.max_queue};"
            f" try again in {seconds} s.",
            seconds,
        )
