"""How likely a model finds texts that follow prompts, steered or not.

Prompts are padded on the left and what follows on the right, so that all prompts of a batch end
at one column: whatever is steered from the end of the prompt on begins there in every row.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact import Steerer, SteererSet
from odesteer.methods import Amount
from odesteer.models import Encoded, SteeredModel


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
        tokens: what the model is given: all but the last token.
        n_prompt: how many of them are the prompt; nothing before its last token is steered as
            generated.
        first: index of the token that the first scored token comes after.
    """

    tokens: tuple[int, ...]
    n_prompt: int
    first: int

    @property
    def n_following(self) -> int:
        """Number of tokens after the prompt."""
        return len(self.tokens) - self.n_prompt


@dataclass(frozen=True)
class Batch:
    """Rows side by side.

    Attributes:
        rows: the rows.
        ids, mask, positions: `[n, columns]`.
        prompt_width: number of columns, from the first, that are prompts.
    """

    rows: tuple[Row, ...]
    ids: Tensor
    mask: Tensor
    positions: Tensor
    prompt_width: int

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> "Batch":
        """The rows, padded."""
        width = max(row.n_prompt for row in rows)
        ids = torch.zeros(len(rows), width + max(row.n_following for row in rows)).long()
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            start = width - row.n_prompt
            part = slice(start, start + len(row.tokens))
            ids[i, part] = torch.tensor(row.tokens)
            mask[i, part] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        ids, mask, positions = (x.to(device) for x in (ids, mask, positions))
        return cls(tuple(rows), ids, mask, positions, width)

    def scored(self, i: int, logits: Tensor) -> Tensor:
        """Of the logits `[n, columns, vocabulary]` from the end of the prompts on, those that the
        scored tokens of row ``i`` are chosen from: `[tokens, vocabulary]`."""
        row = self.rows[i]
        return logits[i, row.first - row.n_prompt + 1 : row.n_following + 1]


def logits_of(
    lm: SteeredModel, batch: Batch, steering: AbstractContextManager[Any], *, in_two: bool
) -> Tensor:
    """Logits from the last token of the prompts on, `[n, columns, vocabulary]`.

    ``steering`` is entered around the passes. ``in_two``: the prompts in a pass of their own, for
    what is decided when the whole prompt has passed, see `is_read_late`.
    """
    has_positions = "position_ids" in inspect.signature(lm.layers.owner.forward).parameters
    cached = "use_cache" in inspect.signature(lm.model.forward).parameters
    width = batch.prompt_width

    def forward(start: int, stop: int | None, use_cache: bool, **options: Any) -> Any:
        if has_positions:
            options["position_ids"] = batch.positions[:, start:stop]
        if cached:
            options["use_cache"] = use_cache
        return lm.model(batch.ids[:, start:stop], attention_mask=batch.mask[:, :stop], **options)

    with torch.no_grad(), steering:
        if not in_two or batch.ids.shape[1] == width:
            logits: Tensor = forward(0, None, False).logits
            return logits[:, width - 1 :]
        prompt = forward(0, width, True)
        rest = forward(width, None, True, past_key_values=prompt.past_key_values)
        return torch.cat([prompt.logits[:, -1:], rest.logits], dim=1)


def answer(logits: Tensor, expected: Sequence[int], dtype: Any) -> tuple[float, bool]:
    """Log-likelihood of tokens, nats, and whether they are what greedy decoding writes.

    ``logits`` are `[tokens, vocabulary]`; ``dtype`` is that of the softmax (None: theirs).
    """
    ids = torch.tensor(expected, device=logits.device)
    logs = logits.log_softmax(dim=-1, dtype=dtype).gather(-1, ids[:, None])
    return float(logs.sum(dtype=torch.float64)), bool((logits.argmax(dim=-1) == ids).all())


def is_read_late(steerer: Steerer | SteererSet) -> bool:
    """Whether a gate is read behind a place that it decides about."""
    return any(
        member.gate is not None
        and member.site is not None
        and member.gate.site.depth > member.site.depth
        for member in steerer.members
    )


@dataclass(frozen=True)
class LogLikelihood:
    """Of one response.

    Attributes:
        total: log-probability of all its tokens, nats.
        n_tokens: how many tokens that are.
        n_lost: how many tokens the beginning of its prompt lost to the model's context.
    """

    total: float
    n_tokens: int
    n_lost: int = 0

    @property
    def mean(self) -> float | None:
        """Nats a token; None of no tokens."""
        return self.total / self.n_tokens if self.n_tokens else None


def log_likelihoods(
    lm: SteeredModel,
    examples: Sequence[Encoded],
    steerer: Steerer | None = None,
    amount: Amount | None = None,
    *,
    batch_size: int = 16,
) -> list[LogLikelihood]:
    """The log-likelihood of each response given its prompt.

    With a steerer every pass is steered as generating the response would have been. Where there
    is no prompt at all, the first token of the response is taken for one.
    """
    rows = [_row(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].n_prompt, -len(rows[i].tokens)))
    how_much: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
    in_two = steerer is not None and is_read_late(steerer)
    found: dict[int, LogLikelihood] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = Batch.of([rows[i] for i in numbers], lm.device)
        steering = (
            nullcontext()
            if steerer is None
            else lm.steering(steerer, prompt_width=batch.prompt_width, **how_much)
        )
        logits = logits_of(lm, batch, steering, in_two=in_two)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        for k, i in enumerate(numbers):
            expected = examples[i].ids[rows[i].n_prompt :]
            total, _ = answer(batch.scored(k, logits), expected, dtype)
            found[i] = LogLikelihood(total, len(expected))
    return [found[i] for i in range(len(examples))]


def _row(example: Encoded) -> Row:
    n_prompt = max(example.n_prompt, 1)
    # A text of one token, with nothing before it, is given whole and not scored.
    tokens = example.ids[:-1] if len(example) > 1 else example.ids
    return Row(tokens, n_prompt, n_prompt - 1)
