"""Log-likelihoods of responses whose prompts are computed once for all steerers and amounts.

Nothing before the last prompt token is steered at the positions `last` and `generated`, so the
keys and values of the rest of a prompt are the same under every steering and for every response.
Each setting then costs a pass over the last prompt token and the responses.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact import Steerer, SteererSet
from odesteer.methods import Amount
from odesteer.models import Encoded, SteeredModel
from odesteer.tuning.objectives.log_likelihood import LogLikelihood

SteeringFactory = Callable[[int], AbstractContextManager[Any]]
"""Makes the context in which passes are steered, given the columns of the prompt."""

_ROWS = 32
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class _Batch:
    """Responses of prompts, padded on the left, of which all but the last token have passed.

    Attributes:
        cache: keys and values of the different prompts.
        prompts: `[rows]`, which of them each row has.
        width: columns of the prompts.
        mask, ids: `[rows, columns]`.
        rows: numbers of the examples.
    """

    cache: Any
    prompts: Tensor
    width: int
    mask: Tensor
    ids: Tensor
    rows: tuple[int, ...]


class PrefixScorer:
    """Scores responses under many steerings; prompts of earlier calls are not computed again.

    Kept are the keys and values of the examples of the last calls, at most 1 GiB. The weights of
    the model must not change meanwhile.
    """

    def __init__(self, lm: SteeredModel) -> None:
        self._lm = lm
        self._kept: OrderedDict[str, list[_Batch]] = OrderedDict()

    @classmethod
    def can_score(cls, lm: SteeredModel, steerer: Steerer | SteererSet | None) -> bool:
        """Whether nothing but generated tokens is steered, and the model has a plain KV cache."""
        config = getattr(lm.model, "config", None)
        if config is None or getattr(config, "is_encoder_decoder", False):
            return False
        if getattr(lm.model, "_is_stateful", False):
            return False
        if steerer is None:
            return True
        return all(
            member.gate is None
            and member.site is not None
            and member.site.position in ("last", "generated")
            for member in steerer.members
        )

    def log_likelihoods(
        self,
        examples: Sequence[Encoded],
        steerer: Steerer | SteererSet | None = None,
        amount: Amount | None = None,
    ) -> list[LogLikelihood]:
        """The log-likelihood of each response given its prompt, in order, nats.

        Every example has a prompt, if only of one token. They equal those of
        `odesteer.evaluation.metrics.log_likelihoods` up to rounding.
        """
        totals = self.totals(examples, self._steering(steerer, amount)).tolist()
        lengths = [len(example) - example.n_prompt for example in examples]
        return [LogLikelihood(total, n) for total, n in zip(totals, lengths, strict=True)]

    def totals(self, examples: Sequence[Encoded], steering: SteeringFactory) -> Tensor:
        """The log-likelihood of each response given its prompt, `[n]` in float64, nats.

        ``steering`` makes the context in which passes are steered; nothing before the last prompt
        token may be.
        """
        totals = torch.zeros(len(examples), dtype=torch.float64)
        for batch, logits in self._passes(examples, steering):
            expected = batch.ids[:, batch.width :]
            chosen = logits.gather(-1, expected[..., None])[..., 0] - logits.logsumexp(-1)
            counted = batch.mask[:, batch.width :].bool()
            found = torch.where(counted, chosen.double(), 0.0).sum(-1).cpu()
            totals[list(batch.rows)] = found
        return totals

    def log_probabilities(
        self,
        examples: Sequence[Encoded],
        steerer: Steerer | SteererSet | None = None,
        amount: Amount | None = None,
    ) -> list[Tensor]:
        """For each response the log-probabilities `[tokens, vocabulary]` it is chosen from."""
        found: dict[int, Tensor] = {}
        for batch, logits in self._passes(examples, self._steering(steerer, amount)):
            logs = logits.log_softmax(-1)
            for i, row in enumerate(batch.rows):
                found[row] = logs[i, : len(examples[row]) - examples[row].n_prompt]
        return [found[i] for i in range(len(examples))]

    def _steering(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None
    ) -> SteeringFactory:
        if steerer is None:
            return lambda prompt_width: nullcontext()
        quantity: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
        return lambda prompt_width: self._lm.steering(
            steerer, prompt_width=prompt_width, **quantity
        )

    def _passes(
        self, examples: Sequence[Encoded], steering: SteeringFactory
    ) -> Iterator[tuple[_Batch, Tensor]]:
        """Each batch with its logits, float32."""
        for batch in self._batches(examples):
            yield batch, self._logits(batch, steering(batch.width)).float()

    def _logits(self, batch: _Batch, steering: AbstractContextManager[Any]) -> Tensor:
        """Logits that the response tokens are chosen from, `[rows, longest, vocabulary]`."""
        first = batch.width - 1
        cache = copy.deepcopy(batch.cache)
        if first:
            cache.batch_select_indices(batch.prompts)
        with torch.no_grad(), steering:
            logits: Tensor = self._lm.model(
                input_ids=batch.ids[:, first:-1],
                attention_mask=batch.mask[:, :-1],
                position_ids=_positions(batch.mask)[:, first:-1],
                past_key_values=cache,
            ).logits
        return logits

    def _batches(self, examples: Sequence[Encoded]) -> list[_Batch]:
        key = hashlib.sha256(repr([(e.ids, e.n_prompt) for e in examples]).encode()).hexdigest()
        if key not in self._kept:
            order = sorted(
                range(len(examples)), key=lambda i: (examples[i].n_prompt, examples[i].ids)
            )
            self._kept[key] = [
                self._prefilled(order[start : start + _ROWS], examples)
                for start in range(0, len(order), _ROWS)
            ]
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _MOST_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _prefilled(self, rows: Sequence[int], examples: Sequence[Encoded]) -> _Batch:
        from transformers import DynamicCache

        chosen = [examples[i] for i in rows]
        width = max(example.n_prompt for example in chosen)
        longest = max(len(example) - example.n_prompt for example in chosen)
        ids = torch.zeros(len(rows), width + longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, example in enumerate(chosen):
            span = slice(width - example.n_prompt, width - example.n_prompt + len(example))
            ids[i, span] = torch.tensor(example.ids)
            mask[i, span] = 1
        prompts = [example.ids[: example.n_prompt] for example in chosen]
        different = list(dict.fromkeys(prompts))
        first = torch.tensor([prompts.index(prompt) for prompt in different])
        of_row = torch.tensor([different.index(prompt) for prompt in prompts])
        ids, mask = ids.to(self._lm.device), mask.to(self._lm.device)
        cache = DynamicCache(config=self._lm.model.config)
        if width > 1:
            with torch.no_grad():
                self._lm.model(
                    input_ids=ids[first, : width - 1],
                    attention_mask=mask[first, : width - 1],
                    position_ids=_positions(mask)[first, : width - 1],
                    past_key_values=cache,
                    logits_to_keep=1,
                )
        return _Batch(cache, of_row.to(self._lm.device), width, mask, ids, tuple(rows))


def _size(batches: Sequence[_Batch]) -> int:
    """Bytes of keys and values."""
    return sum(
        tensor.numel() * tensor.element_size()
        for batch in batches
        for layer in batch.cache.layers
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if tensor is not None
    )


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp_min(0)
