"""The two sets of activations that everything is fitted to."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError

Groups = tuple[Sequence[Hashable] | Tensor, Sequence[Hashable] | Tensor]

FitArguments = tuple[Tensor, Tensor, Groups]
"""Activations of both sides, `[n₊, d]` and `[n₋, d]`, and their groups, as `fit` takes them."""


@dataclass(frozen=True)
class Contrast:
    """Checked activations of desirable and undesirable examples.

    Attributes:
        positive: `[n₊, d]`, float32 or float64.
        negative: `[n₋, d]`, likewise.
        groups: `[n₊ + n₋]` integer group labels, positives first, on the CPU.
    """

    positive: Tensor
    negative: Tensor
    groups: Tensor

    @property
    def group_pair(self) -> tuple[Tensor, Tensor]:
        """Group labels of the positives and of the negatives, as `fit` takes them."""
        n = len(self.positive)
        return self.groups[:n], self.groups[n:]

    @property
    def width(self) -> int:
        return int(self.positive.shape[1])

    @cached_property
    def examples(self) -> Tensor:
        """All activations `[n, d]`, positives first."""
        return torch.cat([self.positive, self.negative])

    @cached_property
    def labels(self) -> Tensor:
        """`[n]` float64 on the CPU, 1 for positives and 0 for negatives."""
        y = torch.zeros(len(self.positive) + len(self.negative), dtype=torch.float64)
        y[: len(self.positive)] = 1
        return y

    @property
    def prior(self) -> float:
        """log(n₋/n₊), what turns a classifier's logit into a log-density ratio."""
        return math.log(len(self.negative) / len(self.positive))

    def prior_of(self, mask: Tensor) -> float:
        """The same among the masked examples."""
        n_positive = float(self.labels[mask].sum())
        return math.log((float(mask.sum()) - n_positive) / n_positive)

    def split(self, mask: Tensor) -> tuple[Tensor, Tensor, Groups]:
        """The masked examples as arguments of `fit`."""
        n = len(self.positive)
        return (
            self.positive[mask[:n]],
            self.negative[mask[n:]],
            (self.groups[:n][mask[:n]], self.groups[n:][mask[n:]]),
        )


def check_contrast(positive: Tensor, negative: Tensor, groups: Groups | None = None) -> Contrast:
    """Validate a fit's input; half precision becomes float32, integers are refused.

    Examples of one group belong together: pairs are formed within groups, and no fold of a
    cross-validation splits one. Without ``groups``, sets of equal size are pairs in order, the
    i-th positive and the i-th negative a group, and in sets of different size every example is a
    group of its own. Sets of equal size that are all one group, such as answers to one prompt,
    are pairs in order too. Raises `InvalidInputError`.
    """
    sets = {"positive": positive, "negative": negative}
    for name, a in sets.items():
        if not isinstance(a, Tensor):
            raise InvalidInputError(
                f"{name} must be a float tensor [n, d], not {type(a).__name__};"
                " use torch.as_tensor."
            )
        if a.ndim != 2 or not a.is_floating_point():
            raise InvalidInputError(
                f"{name} must be a float tensor [n, d], got {a.dtype} of shape {tuple(a.shape)}."
            )
        if a.shape[0] < 2:
            raise InvalidInputError(
                f"{name} has {a.shape[0]} examples; at least 2 of each class are needed."
            )
        bad = int((~torch.isfinite(a)).any(dim=1).sum())
        if bad:
            raise InvalidInputError(
                f"{name} has NaN or infinite values in {bad} of {a.shape[0]} rows; drop them, or"
                " capture in float32 or bfloat16."
            )
    if positive.shape[1] != negative.shape[1]:
        raise InvalidInputError(
            f"positive has width {positive.shape[1]}, negative {negative.shape[1]};"
            " both must come from the same layer of the same model."
        )
    if positive.device != negative.device:
        raise InvalidInputError(
            f"positive is on {positive.device}, negative on {negative.device}; move one."
        )
    first = positive[0]
    if bool((positive == first).all()) and bool((negative == first).all()):
        raise InvalidInputError("all activations are equal; there is nothing to fit.")
    if positive.shape == negative.shape and torch.equal(positive, negative):
        raise InvalidInputError("positive and negative are equal; there is nothing to tell apart.")
    double = torch.float64 in (positive.dtype, negative.dtype)
    dtype = torch.float64 if double else torch.float32
    return Contrast(positive.to(dtype), negative.to(dtype), _integer_groups(sets, groups))


def _integer_groups(sets: dict[str, Tensor], groups: Groups | None) -> Tensor:
    n_positive, n_negative = (len(a) for a in sets.values())
    pairs_in_order = torch.arange(n_positive).repeat(2)
    if groups is None:
        return pairs_in_order if n_positive == n_negative else torch.arange(n_positive + n_negative)
    if len(groups) != 2:
        raise InvalidInputError(
            f"groups must be a pair (groups of positives, groups of negatives), got {len(groups)}"
            " items."
        )
    codes: dict[Hashable, int] = {}
    integers: list[int] = []
    for (name, a), labels in zip(sets.items(), groups, strict=True):
        listed = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        if len(listed) != len(a):
            raise InvalidInputError(
                f"groups of the {name} examples has {len(listed)} labels for {len(a)} examples."
            )
        integers += [codes.setdefault(label, len(codes)) for label in listed]
    if len(codes) == 1 and n_positive == n_negative:
        return pairs_in_order
    return torch.tensor(integers)
