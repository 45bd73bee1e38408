"""Choosing among the attention heads of several layers, as the original ITI does."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from odesteer.barriers import Groups
from odesteer.errors import InvalidInputError
from odesteer.methods import HeadITI
from odesteer.untrusted import is_integer

S = TypeVar("S")
Sides = tuple[Tensor, Tensor, Groups]
"""Activations of both sides, `[n₊, d]` and `[n₋, d]`, and their groups, as `fit` takes them."""


def best_heads(method: HeadITI, sides: Mapping[S, Sides]) -> dict[S, dict[int, float]]:
    """The ``top_k`` heads of all layers whose probes are most accurate (Li et al., NeurIPS 2023).

    Returns for each layer that has such heads the accuracy of each on held-out groups, by number;
    equal ones are taken from the first layers and heads on. By default a quarter of all heads.
    Raises `InvalidInputError` for a number that is not there.
    """
    accuracies = [method.head_accuracies(*arguments) for arguments in sides.values()]
    n_heads, flat = len(accuracies[0]), torch.cat(accuracies)
    k = max(1, len(flat) // 4) if method.top_k is None else method.top_k
    if not is_integer(k) or not 1 <= k <= len(flat):
        raise InvalidInputError(
            f"top_k must be an integer from 1 to {len(flat)}, the number of heads in"
            f" {len(accuracies)} layers, not {k!r}."
        )
    best = sorted(int(i) for i in flat.argsort(descending=True, stable=True)[:k])
    chosen: dict[S, dict[int, float]] = {}
    for i in best:
        layer = list(sides)[i // n_heads]
        chosen.setdefault(layer, {})[i % n_heads] = float(flat[i])
    return chosen
