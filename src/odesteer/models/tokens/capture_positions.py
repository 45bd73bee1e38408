"""Capture positions: which tokens of each example activations are taken at."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.models.tokens.encoding import Encoded
from odesteer.untrusted import is_integer

CapturePosition = Literal["last", "answer", "prompt", "random_answer"]
CAPTURE_POSITIONS: tuple[CapturePosition, ...] = ("last", "answer", "prompt", "random_answer")

CapturePositions = list[CapturePosition] | tuple[CapturePosition, ...]
"""Several positions; lists and tuples only, since a string is a sequence too."""

DEFAULT_K = 4

Tokens = list[list[int]]
"""For each example the indices of its tokens, increasing."""


def check_position(position: Any) -> None:
    """Raise `InvalidInputError` unless this is the name of one capture position."""
    if position not in CAPTURE_POSITIONS:
        raise InvalidInputError(
            f"position must be one of {', '.join(CAPTURE_POSITIONS)}, not {position!r}."
        )


def captured_tokens(
    examples: Sequence[Encoded],
    position: CapturePosition | CapturePositions = "last",
    *,
    k: int | None = None,
    seed: int = 0,
) -> dict[str, Tokens]:
    """The tokens to capture at one or several positions.

    ``position`` is `last` (the last token), `answer` (all tokens of the response), `prompt` (the
    last token of the prompt) or `random_answer` (``k`` tokens of the response, 4 by default, or
    all of a shorter one). The random ones depend on the seed and the order of the examples only.
    Raises `InvalidInputError` for other names, for none, and for a ``k`` that has no use.
    """
    positions = position if isinstance(position, (list, tuple)) else [position]
    if not positions:
        raise InvalidInputError("give at least one position to capture at, such as 'last'.")
    for one in positions:
        check_position(one)
    if k is not None and "random_answer" not in positions:
        raise InvalidInputError(f"k={k} has no use with position={position!r}; leave it out.")
    k = DEFAULT_K if k is None else k
    if not is_integer(k, 1):
        raise InvalidInputError(f"k must be a positive integer, not {k!r}.")
    return {one: _tokens(examples, one, k, seed) for one in positions}


def _tokens(examples: Sequence[Encoded], position: CapturePosition, k: int, seed: int) -> Tokens:
    if position == "last":
        return [[len(example) - 1] for example in examples]
    if position == "answer":
        return [list(example.response) for example in examples]
    if position == "prompt":
        for i, example in enumerate(examples):
            if not example.n_prompt:
                raise InvalidInputError(
                    f"example {i} has no prompt token to capture at; use position='last'."
                )
        return [[example.n_prompt - 1] for example in examples]
    generator = torch.Generator().manual_seed(seed)
    return [
        sorted(
            example.n_prompt + int(i)
            for i in torch.randperm(len(example.response), generator=generator)[:k]
        )
        for example in examples
    ]


def union_of_tokens(tokens: Mapping[str, Tokens]) -> Tokens:
    """The tokens of all positions, each once."""
    return [sorted(set().union(*own)) for own in zip(*tokens.values(), strict=True)]


def rows_of_tokens(some: Tokens, every: Iterable[Sequence[int]]) -> Tensor:
    """Which of the rows that ``every`` token gives `[m]` are those of ``some``, increasing."""
    wanted = [
        token in own for own, tokens in zip(map(set, some), every, strict=True) for token in tokens
    ]
    return torch.tensor(wanted).nonzero().flatten()
