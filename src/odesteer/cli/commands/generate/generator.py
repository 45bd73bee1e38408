"""Generate texts with a steered model, with a receipt of each steerer for each text."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from odesteer.artifact.applied import Applied
from odesteer.cli.errors import UsageError
from odesteer.data import Message
from odesteer.errors import InvalidInputError
from odesteer.models import Receipt

if TYPE_CHECKING:
    from odesteer.models import SteeredModel

Stream = Callable[[int, str], None]


@dataclass(frozen=True)
class SamplingOptions:
    """Options of the choice of tokens. Raises `UsageError` for values out of range."""

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
        """Keyword arguments of `SteeredModel.generate`."""
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


def sampling_options(
    temperature: float | None, top_p: float | None, seed: int | None, greedy: bool
) -> SamplingOptions:
    """The given options, else the defaults. Raises `UsageError` for them with greedy decoding."""
    given = {"temperature": temperature, "top_p": top_p, "seed": seed}
    chosen = {name: value for name, value in given.items() if value is not None}
    if greedy and chosen:
        option = next(iter(chosen)).replace("_", "-")
        raise UsageError(
            f"--greedy takes the likeliest token and has no --{option}; leave out one."
        )
    return replace(SamplingOptions(greedy=greedy), **chosen)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SteererReceipt:
    """The effect of one steerer on one text: means and counts over its activations.

    Attributes:
        before: mean log-density ratio of the steered activations before, nats; None where the
            method has no barrier, or no activation was steered.
        after: the same after.
        moved: number of activations.
        capped: how many of them reached the cap of the solver before their level.
        unusable: how many were zero or not finite and not steered.
        condition: log-density ratio of the gate's barrier at the prompt, nats; None for a steerer
            without a gate.
        is_open: whether the gate was open; None without one.
    """

    before: float | None
    after: float | None
    moved: int
    capped: int
    unusable: int
    condition: float | None = None
    is_open: bool | None = None


@dataclass(frozen=True)
class SteeredText:
    """A generated text and the receipt of each steerer."""

    text: str
    n_tokens: int
    receipts: tuple[SteererReceipt, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "tokens": self.n_tokens,
            "receipts": [asdict(receipt) for receipt in self.receipts],
        }


class TextGenerator:
    """Generates one text for each prompt, under any steerers.

    ``max_new_tokens`` is by default 128, or what fits in the context. With ``chat`` each prompt is
    a user's message; ``watermark`` is a watermarking configuration of transformers. Raises
    `UsageError` for prompts that do not leave so many tokens.
    """

    def __init__(
        self,
        lm: "SteeredModel",
        prompts: Sequence[str],
        sampling: SamplingOptions,
        max_new_tokens: int | None,
        batch_size: int,
        *,
        chat: bool = False,
        watermark: Any = None,
    ) -> None:
        self._lm = lm
        self._prompts = [(Message("user", prompt),) if chat else prompt for prompt in prompts]
        self._lengths = [_length(lm, number, p) for number, p in enumerate(self._prompts, 1)]
        self._options = sampling.options
        if watermark is not None:
            self._options["watermarking_config"] = watermark
        self._batch_size = batch_size
        self.max_new_tokens = self._new_tokens(max_new_tokens)

    def generate(
        self, steerers: Sequence[Applied], stream: Stream | None = None
    ) -> list[SteeredText]:
        """One text for each prompt, with all of the steerers at once."""
        starts = range(0, len(self._prompts), self._batch_size)
        parts = (slice(start, start + self._batch_size) for start in starts)
        return [text for part in parts for text in self._generate(part, steerers, stream)]

    def _generate(
        self, part: slice, steerers: Sequence[Applied], stream: Stream | None
    ) -> list[SteeredText]:
        with ExitStack() as stack:
            contexts = [
                stack.enter_context(self._lm.steering(each.steerer, receipt=True, **each.arguments))
                for each in steerers
            ]
            texts = self._lm.generate(
                self._prompts[part],
                max_new_tokens=self.max_new_tokens,
                receipt=True,
                stream=stream,
                **self._options,
            )
        width = max(self._lengths[part])
        receipts = [context.receipt() for context in contexts]
        # Columns after the end of a text do not count: its row only waits for the others.
        return [
            SteeredText(
                text.text,
                len(text.tokens),
                tuple(
                    _steerer_receipt(receipt, row, width + len(text.tokens)) for receipt in receipts
                ),
            )
            for row, text in enumerate(texts)
        ]

    def _new_tokens(self, requested: int | None) -> int:
        """``requested``, or the default, if it fits in the context behind the longest prompt."""
        longest, context = max(self._lengths), self._lm.context
        left = math.inf if context is None else context - longest
        if left < (requested or 1):
            room = "no room" if left < 1 else f"room for {left}"
            raise UsageError(
                f"the longest prompt has {longest} tokens, which leaves {room} in the model's"
                f" context of {context}; shorten it{' or lower --max-new-tokens' * (left >= 1)}."
            )
        return int(min(128, left)) if requested is None else requested


def _length(lm: "SteeredModel", number: int, prompt: str | tuple[Message, ...]) -> int:
    """Number of tokens of a prompt. Raises `UsageError` for prompts that cannot be encoded."""
    try:
        return len(lm.encode(prompt))
    except InvalidInputError as error:
        raise UsageError(f"prompt {number}: {error}") from error


def _steerer_receipt(receipt: Receipt, row: int, end: int) -> SteererReceipt:
    """The part of a receipt about one row, up to column ``end``."""
    own = (receipt.row == row) & (receipt.column < end)

    def mean(values: Any) -> float | None:
        known = values[own]
        known = known[known.isfinite()]
        return float(known.mean()) if len(known) else None

    gates = receipt.decisions
    decided = (gates.row == row).nonzero().flatten().tolist()[:1]
    return SteererReceipt(
        condition=float(gates.value[decided[0]]) if decided else None,
        is_open=bool(gates.is_open[decided[0]]) if decided else None,
        before=mean(receipt.before),
        after=mean(receipt.after),
        moved=int(own.sum()),
        capped=int((receipt.capped & own).sum()),
        unusable=int((~receipt.usable & own).sum()),
    )
