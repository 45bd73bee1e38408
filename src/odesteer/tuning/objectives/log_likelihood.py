"""Log-likelihoods of responses given their prompts, with or without steering.

Prompts are padded on the left and responses on the right, so that all prompts of a batch end at
the same column, where steering of generated tokens begins.
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
class ScoredSequence:
    """The input tokens of one sequence.

    Attributes:
        tokens: the input of the model: all but the last token.
        n_prompt: how many of them are the prompt; tokens before its last one are not steered as
            generated.
        first: index of the token before the first scored token.
    """

    tokens: tuple[int, ...]
    n_prompt: int
    first: int

    @property
    def n_following(self) -> int:
        """Number of tokens after the prompt."""
        return len(self.tokens) - self.n_prompt


@dataclass(frozen=True)
class SequenceBatch:
    """Padded sequences.

    Attributes:
        sequences: without padding.
        ids, mask, positions: `[n, columns]`.
        prompt_width: number of columns, from the first, that are prompts.
    """

    sequences: tuple[ScoredSequence, ...]
    ids: Tensor
    mask: Tensor
    positions: Tensor
    prompt_width: int

    @classmethod
    def of(cls, sequences: Sequence[ScoredSequence], device: torch.device) -> "SequenceBatch":
        """Pad the sequences and put them on a device."""
        width = max(sequence.n_prompt for sequence in sequences)
        ids = torch.zeros(len(sequences), width + max(s.n_following for s in sequences)).long()
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            start = width - sequence.n_prompt
            part = slice(start, start + len(sequence.tokens))
            ids[i, part] = torch.tensor(sequence.tokens)
            mask[i, part] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        ids, mask, positions = (x.to(device) for x in (ids, mask, positions))
        return cls(tuple(sequences), ids, mask, positions, width)

    def scored(self, i: int, logits: Tensor) -> Tensor:
        """The logits of the scored tokens of sequence ``i``, `[tokens, vocabulary]`.

        ``logits`` are those of `forward_logits`, `[n, columns, vocabulary]`.
        """
        sequence = self.sequences[i]
        return logits[i, sequence.first - sequence.n_prompt + 1 : sequence.n_following + 1]


def forward_logits(
    lm: SteeredModel,
    batch: SequenceBatch,
    steering: AbstractContextManager[Any],
    *,
    prompt_first: bool,
) -> Tensor:
    """Logits from the last token of the prompts on, `[n, columns, vocabulary]`.

    ``steering`` is entered around the forward passes. With ``prompt_first`` the prompts have a pass
    of their own, see `needs_prompt_pass`.
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
        if not prompt_first or batch.ids.shape[1] == width:
            logits: Tensor = forward(0, None, False).logits
            return logits[:, width - 1 :]
        prompt = forward(0, width, True)
        rest = forward(width, None, True, past_key_values=prompt.past_key_values)
        return torch.cat([prompt.logits[:, -1:], rest.logits], dim=1)


def score_tokens(logits: Tensor, expected: Sequence[int], dtype: Any) -> tuple[float, bool]:
    """Log-likelihood of tokens, nats, and whether greedy decoding gives the same tokens.

    ``logits`` are `[tokens, vocabulary]`; ``dtype`` is that of the softmax (None: theirs).
    """
    ids = torch.tensor(expected, device=logits.device)
    logs = logits.log_softmax(dim=-1, dtype=dtype).gather(-1, ids[:, None])
    return float(logs.sum(dtype=torch.float64)), bool((logits.argmax(dim=-1) == ids).all())


def needs_prompt_pass(steerer: Steerer | SteererSet) -> bool:
    """Whether a gate is read at a deeper site than the one it switches."""
    return any(
        member.gate is not None
        and member.site is not None
        and member.gate.site.depth > member.site.depth
        for member in steerer.members
    )


@dataclass(frozen=True)
class LogLikelihood:
    """The log-likelihood of one response.

    Attributes:
        total: log-probability of all its tokens, nats.
        n_tokens: number of tokens.
        n_lost: tokens cut from the beginning of the prompt to fit the model's context.
    """

    total: float
    n_tokens: int
    n_lost: int = 0

    @property
    def mean(self) -> float | None:
        """Nats a token; None without tokens."""
        return self.total / self.n_tokens if self.n_tokens else None


def log_likelihoods(
    lm: SteeredModel,
    examples: Sequence[Encoded],
    steerer: Steerer | SteererSet | None = None,
    amount: Amount | None = None,
    *,
    batch_size: int = 16,
) -> list[LogLikelihood]:
    """The log-likelihood of each response given its prompt.

    With a steerer the passes are steered as in generation of the response. Without a prompt, the
    first token of the response is used as the prompt.
    """
    sequences = [_sequence(example) for example in examples]
    lengths = [(-each.n_prompt, -len(each.tokens)) for each in sequences]
    order = sorted(range(len(sequences)), key=lengths.__getitem__)
    quantity: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
    prompt_first = steerer is not None and needs_prompt_pass(steerer)
    found: dict[int, LogLikelihood] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = SequenceBatch.of([sequences[i] for i in numbers], lm.device)
        steering = (
            nullcontext()
            if steerer is None
            else lm.steering(steerer, prompt_width=batch.prompt_width, **quantity)
        )
        logits = forward_logits(lm, batch, steering, prompt_first=prompt_first)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        for k, i in enumerate(numbers):
            expected = examples[i].ids[sequences[i].n_prompt :]
            total, _ = score_tokens(batch.scored(k, logits), expected, dtype)
            found[i] = LogLikelihood(total, len(expected))
    return [found[i] for i in range(len(examples))]


def _sequence(example: Encoded) -> ScoredSequence:
    n_prompt = max(example.n_prompt, 1)
    # A single token without a prompt is the input, and nothing is scored.
    tokens = example.ids[:-1] if len(example) > 1 else example.ids
    return ScoredSequence(tokens, n_prompt, n_prompt - 1)
