"""The engine: texts are asked for on the event loop, and written in a thread of its own."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.serving.engine.output import OutputStream
from odesteer.serving.engine.request import GenerationRequest
from odesteer.serving.engine.scheduler import Scheduler
from odesteer.serving.engine.sequence import SequenceState
from odesteer.serving.engine.steering import SequenceSteerer
from odesteer.serving.steerers import SteererMember, SteererRegistry, SteeringSpec

T = TypeVar("T")


class BusyError(OdesteerError, RuntimeError):
    """The queue is full.

    Attributes:
        retry_after: seconds after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Engine:
    """Writes texts with a steered model, many at a time.

    Parameters:
        lm: the model.
        model_id: what requests call it.
        max_batch: the most texts that are written at a time.
        max_queue: the most that wait.

    Attributes:
        steerers: what it can be steered by, `RegisteredSteerer` objects by name.
    """

    def __init__(
        self, lm: SteeredModel, model_id: str, *, max_batch: int = 16, max_queue: int = 256
    ) -> None:
        self.lm = lm
        self.model_id = model_id
        self.steerers = SteererRegistry(lm)
        self.max_batch = max_batch
        self.max_queue = max_queue
        self._stops = frozenset(_stops(lm))
        self._worker = Scheduler(lm, _pad(lm), max_batch)

    def start(self) -> None:
        """Begin to write."""
        self._worker.start()

    async def close(self) -> None:
        """FinishReason what was asked for, and end."""
        await asyncio.to_thread(self._worker.close)

    @property
    def is_alive(self) -> bool:
        return self._worker.is_alive

    @property
    def n_waiting(self) -> int:
        return self._worker.n_waiting

    @property
    def n_running(self) -> int:
        return self._worker.n_running

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the model knows."""
        embedding = self.lm.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    def submit(
        self, jobs: Sequence[GenerationRequest], *, at_end: bool = False
    ) -> list[OutputStream]:
        """Ask for texts: all of them or, with `BusyError`, none. Called on the event loop.

        They are handed out as they are written, or ``at_end``, which is cheaper. Raises
        `InvalidInputError` for steerers that do not exist and amounts that they do not have.
        """
        rows = [
            SequenceState(
                job,
                OutputStream(at_end=at_end),
                self._actings(job),
                self.lm.tokenizer,
                self._stops,
                self.lm.device,
            )
            for job in jobs
        ]
        if not self._worker.add(rows, self.max_queue):
            raise self._busy()
        return [row.stream for row in rows]

    async def call(self, function: Callable[[SteeredModel], T]) -> T:
        """What a function of the model returns, run between two steps, nothing being steered.

        Raises `BusyError`, and whatever the function raises.
        """
        future = self._worker.call(function, self.max_queue)
        if future is None:
            raise self._busy()
        result: T = await asyncio.wrap_future(future)
        return result

    def _busy(self) -> BusyError:
        rounds = (self.n_waiting + self.n_running) / self.max_batch
        seconds = min(max(math.ceil(rounds * self._worker.seconds), 1), 60)
        return BusyError(
            f"{self.n_waiting} texts wait already, and the queue holds {self.max_queue};"
            f" try again in {seconds} s.",
            seconds,
        )

    def _actings(self, job: GenerationRequest) -> list[SequenceSteerer | None]:
        names = [applied.name for applied in job.steering]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInputError(f"the steerer {name!r} is named twice; name it once.")
        return [acting for applied in job.steering for acting in self._of(applied)]

    def _of(self, applied: SteeringSpec) -> list[SequenceSteerer]:
        entry = self.steerers[applied.name]
        if applied.observe:
            entry.check_observable()
        else:
            entry.check(applied.amount)
        actings = []
        for part in entry.parts:
            amount, acts = _amount(part, applied), part
            if applied.observe:
                acts = part.observing
            actings.append(SequenceSteerer(entry.name, acts, amount, entry.digest, applied.observe))
        return actings


def _amount(part: SteererMember, applied: SteeringSpec) -> Amount:
    """How far one steerer of an entry moves."""
    amount = part.still if applied.observe else applied.amount
    return part.open.method.default_amount if amount is None else amount


def _stops(lm: SteeredModel) -> list[int]:
    """Ids of the tokens that end a text."""
    stop = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    if stop is None:
        return []
    return [int(token) for token in (stop if isinstance(stop, Sequence) else [stop])]


def _pad(lm: SteeredModel) -> int:
    """A token for padding, which the attention mask hides."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(lm.tokenizer, name, None)
        if token is not None:
            return int(token)
    return 0
