"""Log-likelihoods of answers behind prompts whose beginning is computed once.

Nothing before the last prompt token is steered, so the keys and values of the rest of a prompt are
the same for every steerer and amount, and for every answer. Each setting then costs a pass over
the last prompt token and the answers.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from odesteer import SteeredModel
from odesteer.data import Example


class SteeringFactory(Protocol):
    """Makes the context in which passes are steered, given the columns of the prompt."""

    def __call__(self, prompt_width: int) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class _Batch:
    """Rows whose prompts, all but the last token, have passed: padded on the left."""

    cache: DynamicCache  # of the different prompts
    prompts: Tensor  # which of them each row has
    width: int
    mask: Tensor
    ids: Tensor
    rows: list[int]
    lengths: list[int]


class ContinuationScorer:
    """Scores the responses of examples under any steering.

    Args:
        lm: the model.
        examples: prompts with responses; those of one prompt should stand together.
        batch_size: rows at a time.
    """

    def __init__(self, lm: SteeredModel, examples: Sequence[Example], batch_size: int = 32) -> None:
        self._model = lm.model
        self.n = len(examples)
        self._batches = []
        encoded = [lm.encode(example) for example in examples]
        order = sorted(range(self.n), key=lambda i: (encoded[i].n_prompt, len(encoded[i].ids)))
        for start in range(0, self.n, batch_size):
            rows = order[start : start + batch_size]
            prompts = [encoded[i].ids[: encoded[i].n_prompt] for i in rows]
            responses = [encoded[i].ids[encoded[i].n_prompt :] for i in rows]
            self._batches.append(self._prefilled(rows, prompts, responses))

    def _prefilled(
        self, rows: list[int], prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> _Batch:
        width = max(len(prompt) for prompt in prompts)
        longest = max(len(response) for response in responses)
        ids = torch.zeros(len(rows), width + longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            ids[i, width - len(prompt) : width] = torch.tensor(prompt)
            ids[i, width : width + len(response)] = torch.tensor(response)
            mask[i, width - len(prompt) : width + len(response)] = 1
        different = sorted(set(map(tuple, prompts)))
        number = {prompt: i for i, prompt in enumerate(different)}
        chosen = torch.tensor([number[tuple(prompt)] for prompt in prompts])
        first = torch.tensor([chosen.tolist().index(i) for i in range(len(different))])
        cache = DynamicCache(config=self._model.config)
        if width > 1:
            with torch.inference_mode():
                self._model(
                    input_ids=ids[first, : width - 1],
                    attention_mask=mask[first, : width - 1],
                    position_ids=_positions(mask)[first, : width - 1],
                    past_key_values=cache,
                    logits_to_keep=1,
                )
        lengths = [len(response) for response in responses]
        return _Batch(cache, chosen, width, mask, ids, rows, lengths)

    def log_likelihoods(self, steering: SteeringFactory) -> Tensor:
        """Of each response given its prompt, `[n]`, nats."""
        found = torch.zeros(self.n, dtype=torch.float64)
        for batch in self._batches:
            logits = self._passed(batch, steering)
            expected = batch.ids[:, batch.width :]
            chosen = logits.gather(-1, expected[..., None])[..., 0].float()
            chosen = chosen - logits.float().logsumexp(-1)
            counted = batch.mask[:, batch.width :].bool()
            found[batch.rows] = torch.where(counted, chosen.double(), 0.0).sum(-1)
        return found

    def _passed(self, batch: _Batch, steering: SteeringFactory) -> Tensor:
        """Logits that the response tokens are chosen from, `[rows, longest, vocabulary]`."""
        first = batch.width - 1
        cache = copy.deepcopy(batch.cache)
        if first:
            cache.batch_select_indices(batch.prompts)
        with torch.inference_mode(), steering(batch.width):
            output = self._model(
                input_ids=batch.ids[:, first:-1],
                attention_mask=batch.mask[:, :-1],
                position_ids=_positions(batch.mask)[:, first:-1],
                past_key_values=cache,
            )
        logits: Tensor = output.logits
        return logits


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp_min(0)
