"""Writing texts with a model, and the receipts of the steering meanwhile."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from odesteer.cli.arguments.steerers import Applied
from odesteer.cli.errors import UsageError
from odesteer.data import Message
from odesteer.errors import InvalidInputError
from odesteer.models import Receipt

if TYPE_CHECKING:
    from odesteer.models import SteeredModel

Stream = Callable[[int, str], None]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Raises `UsageError` for what is no temperature or probability."""

    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    greedy: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(
                f"--temperature {self.temperature} is not positive; for the likeliest token at"
                " each step use --greedy."
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p} is not above 0 and at most 1.")

    @property
    def options(self) -> dict[str, Any]:
        """For `SteeredModel.generate`."""
        if self.greedy:
            chosen: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        else:
            chosen = {
                "do_sample": True,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": 0,
            }
        return {**chosen, "seed": self.seed}


def sampling_of(
    temperature: float | None, top_p: float | None, seed: int | None, greedy: bool
) -> Sampling:
    """The defaults where nothing is given. Raises `UsageError` for what greedy decoding lacks."""
    given = {"temperature": temperature, "top_p": top_p, "seed": seed}
    chosen = {name: value for name, value in given.items() if value is not None}
    if greedy and chosen:
        option = next(iter(chosen)).replace("_", "-")
        raise UsageError(
            f"--greedy takes the likeliest token and has no --{option}; leave out one."
        )
    return replace(Sampling(greedy=greedy), **chosen)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Account:
    """What one steerer did while one text was written.

    Attributes:
        before: mean log-density ratio of the moved activations before, nats; None where the
            method has no barrier, or nothing was moved.
        after: the same after.
        moved: number of activations.
        capped: how many of them ran to the cap before they reached the level.
        unusable: how many were zero or not finite and were left alone.
        condition: log-density ratio of the steerer's condition at the prompt, nats; None for a
            steerer without a gate.
        is_open: whether that gate was open; None without one.
    """

    before: float | None
    after: float | None
    moved: int
    capped: int
    unusable: int
    condition: float | None = None
    is_open: bool | None = None


@dataclass(frozen=True)
class Written:
    """A text, and the account of each steerer."""

    text: str
    n_tokens: int
    accounts: tuple[Account, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "tokens": self.n_tokens,
            "receipts": [asdict(account) for account in self.accounts],
        }


class Writer:
    """Writes one text for each prompt, as often as wanted.

    ``max_new_tokens`` is by default 128, or what the context has room for. With ``chat`` each
    prompt is a user's message. Raises `UsageError` for prompts that leave less room.
    """

    def __init__(
        self,
        lm: "SteeredModel",
        prompts: Sequence[str],
        sampling: Sampling,
        max_new_tokens: int | None,
        batch_size: int,
        *,
        chat: bool = False,
    ) -> None:
        self._lm = lm
        self._prompts = [(Message("user", prompt),) if chat else prompt for prompt in prompts]
        self._lengths = [_length(lm, number, p) for number, p in enumerate(self._prompts, 1)]
        self._sampling = sampling
        self._batch_size = batch_size
        self.max_new_tokens = self._room(max_new_tokens)

    def write(self, applied: Sequence[Applied], stream: Stream | None = None) -> list[Written]:
        """The texts under all of the steerers at once."""
        starts = range(0, len(self._prompts), self._batch_size)
        parts = (slice(start, start + self._batch_size) for start in starts)
        return [written for part in parts for written in self._write(part, applied, stream)]

    def _write(
        self, part: slice, applied: Sequence[Applied], stream: Stream | None
    ) -> list[Written]:
        with ExitStack() as stack:
            steerings = [
                stack.enter_context(self._lm.steering(each.steerer, receipt=True, **each.quantity))
                for each in applied
            ]
            texts = self._lm.generate(
                self._prompts[part],
                max_new_tokens=self.max_new_tokens,
                receipt=True,
                stream=stream,
                **self._sampling.options,
            )
        width = max(self._lengths[part])
        receipts = [steering.receipt() for steering in steerings]
        # The last column that matters is where the end of a text was chosen: from then on its row
        # only waits for the others.
        return [
            Written(
                text.text,
                len(text.tokens),
                tuple(_account(receipt, row, width + len(text.tokens)) for receipt in receipts),
            )
            for row, text in enumerate(texts)
        ]

    def _room(self, wanted: int | None) -> int:
        longest, context = max(self._lengths), self._lm.context
        room = math.inf if context is None else context - longest
        if room < (wanted or 1):
            much = "no room" if room < 1 else f"room for {room}"
            raise UsageError(
                f"the longest prompt has {longest} tokens, which leaves {much} in the model's"
                f" context of {context}; shorten it{' or lower --max-new-tokens' * (room >= 1)}."
            )
        return int(min(128, room)) if wanted is None else wanted


def _length(lm: "SteeredModel", number: int, prompt: str | tuple[Message, ...]) -> int:
    """Number of tokens of a prompt. Raises `UsageError` if it cannot be continued."""
    try:
        return len(lm.encode(prompt))
    except InvalidInputError as error:
        raise UsageError(f"prompt {number}: {error}") from error


def _account(receipt: Receipt, row: int, end: int) -> Account:
    mine = (receipt.row == row) & (receipt.column < end)

    def mean(values: Any) -> float | None:
        known = values[mine]
        known = known[known.isfinite()]
        return float(known.mean()) if len(known) else None

    gates = receipt.decisions
    decided = (gates.row == row).nonzero().flatten().tolist()[:1]
    return Account(
        condition=float(gates.value[decided[0]]) if decided else None,
        is_open=bool(gates.is_open[decided[0]]) if decided else None,
        before=mean(receipt.before),
        after=mean(receipt.after),
        moved=int(mine.sum()),
        capped=int((receipt.capped & mine).sum()),
        unusable=int((~receipt.usable & mine).sum()),
    )
