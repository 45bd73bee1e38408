"""Cross-validation folds that never split a group."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from odesteer.errors import InvalidInputError


def check_folds(n_folds: int) -> None:
    """Raise `InvalidInputError` unless ``n_folds`` is 0 or an integer of at least 2."""
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 0 or n_folds == 1:
        raise InvalidInputError(f"folds must be 0 (none) or an integer ≥ 2, not {n_folds!r}.")


def group_folds(groups: Tensor, y: Tensor, n_folds: int, seed: int) -> Iterator[Tensor]:
    """Boolean masks `[n]` of the held-out examples of each fold.

    Groups are shuffled by ``seed`` and dealt in turn, first those of positives only, then of
    negatives only, then mixed ones, so that every fold has about its share of each class. Yields
    nothing if some training part would have fewer than two examples of a class.
    """
    unique, index = torch.unique(groups.cpu(), return_inverse=True)
    label = y.cpu().bool()
    has_positive = torch.zeros(len(unique), dtype=torch.bool).index_fill_(0, index[label], True)
    has_negative = torch.zeros(len(unique), dtype=torch.bool).index_fill_(0, index[~label], True)
    kind = has_positive.int() + 2 * has_negative.int()
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    order = shuffled[np.argsort(kind.numpy()[shuffled], kind="stable")]
    n_folds = min(n_folds, len(unique))
    fold_of_group = np.empty(len(unique), dtype=np.int64)
    fold_of_group[order] = np.arange(len(unique)) % max(n_folds, 1)
    fold = torch.from_numpy(fold_of_group)[index]
    masks = [fold == k for k in range(n_folds)]
    enough = all(min(int(label[~mask].sum()), int((~label[~mask]).sum())) >= 2 for mask in masks)
    if n_folds >= 2 and enough:
        yield from masks
