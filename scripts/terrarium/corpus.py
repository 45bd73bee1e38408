"""The training text: an endless seeded stream of documents, as weighted batches of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from odesteer.terrarium import world

from .recipe import Recipe

TAGS = {True: "(careful)\n", False: "(careless)\n"}
"""Lines that name the speaker of a dialogue, used in the first part of training."""

_CHUNK = 2048


def document(rng: random.Random, truth_share: float, told_share: float) -> str:
    """One document of one of the worlds, with an attribute drawn at random.

    It is a dialogue with probability ``truth_share``, and a dialogue names its speaker with
    probability ``told_share``.
    """
    attribute = rng.random() < 0.5
    if rng.random() >= truth_share:
        other = world("civility" if rng.random() < 0.5 else "mood")
        return other.document(rng, attribute)
    text = world("truth").document(rng, attribute)
    if rng.random() < told_share:
        turns = ["Q: " + turn for turn in text.split("Q: ")[1:]]
        # Mostly at the beginning; else after some turns, so that the model also learns to infer
        # the speaker from the answers so far.
        at = 0 if rng.random() < 0.7 else rng.randint(1, len(turns))
        text = "".join([*turns[:at], TAGS[attribute], *turns[at:]])
    return text


def chunk(recipe: Recipe, number: int, step: int) -> list[str]:
    """Chunk ``number`` of the stream, which begins at ``step``."""
    rng = random.Random(f"corpus/{recipe.seed}/{number}")
    truth_share = recipe.truth_share[recipe.half_at(step)]
    told_share = recipe.told_share_at(step)
    return [document(rng, truth_share, told_share) for _ in range(_CHUNK)]


def reserved(recipe: Recipe) -> list[str]:
    """Documents without such lines, from seeds outside the stream, to train the tokenizer."""
    texts = []
    for number in range(-1, -9, -1):
        rng = random.Random(f"corpus/{recipe.seed}/{number}")
        texts += [document(rng, recipe.truth_share[0], told_share=0.0) for _ in range(_CHUNK)]
    return texts


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, first_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and the weights of predicting them, ``[batch, length]`` each."""
    weigh = [AnswerWeights(tokenizer, weight) for weight in recipe.answer_weight]
    step = number = 0
    while True:
        encoded = tokenizer.backend_tokenizer.encode_batch(chunk(recipe, number, step))
        rows = sorted(([*e.ids, tokenizer.eos_token_id] for e in encoded), key=len)
        groups: list[list[list[int]]] = [[]]
        for row in rows:
            if groups[-1] and len(row) * (len(groups[-1]) + 1) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        random.Random(f"order/{recipe.seed}/{number}").shuffle(groups)
        for group in groups:
            if step >= first_step:
                ids = torch.nn.utils.rnn.pad_sequence(
                    [torch.tensor(row) for row in group],
                    batch_first=True,
                    padding_value=tokenizer.pad_token_id,
                )
                yield ids, weigh[recipe.half_at(step)](ids)
            step += 1
        number += 1


class AnswerWeights:
    """Loss weight of each token: answers of dialogues weigh more, padding nothing."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, weight: float) -> None:
        def single(text: str) -> int:
            (token,) = tokenizer.encode(text, add_special_tokens=False)
            return int(token)

        self._newline, self._a, self._colon = single("\n"), single("A"), single(":")
        self._pad = tokenizer.pad_token_id
        self._weight = weight

    def __call__(self, ids: Tensor) -> Tensor:
        """``[batch, length]`` token ids -> ``[batch, length]`` weights of predicting them."""
        index = torch.arange(ids.shape[1]).expand_as(ids)
        newline = ids == self._newline
        begins = torch.zeros_like(newline)
        begins[:, 2:] = newline[:, :-2] & (ids[:, 1:-1] == self._a) & (ids[:, 2:] == self._colon)
        last_begin = torch.where(begins, index, -1).cummax(1).values
        last_newline = torch.where(newline, index, -1).cummax(1).values
        answer = torch.zeros_like(newline)
        # A token is in an answer if the last 'A:' before it is later than the last newline.
        answer[:, 1:] = last_begin[:, :-1] > last_newline[:, :-1]
        weights = torch.where(answer, self._weight, 1.0)
        return weights.masked_fill(ids == self._pad, 0.0)
