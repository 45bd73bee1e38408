"""Pairs of positive and negative examples, by group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.barriers.contrast import Contrast


@dataclass(frozen=True)
class Pairing:
    """Which positive stands against which negative.

    Attributes:
        positive, negative: `[m]` row numbers of the two examples of each pair.
        alone_positive, alone_negative: `[k₊]` and `[k₋]`, rows of examples without a partner.
    """

    positive: Tensor
    negative: Tensor
    alone_positive: Tensor
    alone_negative: Tensor

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def n_alone(self) -> int:
        """Number of examples without a partner, k₊ + k₋."""
        return len(self.alone_positive) + len(self.alone_negative)

    def sides(self, contrast: Contrast) -> tuple[Tensor, Tensor]:
        """Positives and negatives `[m + k₊ + k₋, d]` that stand against each other.

        An example without a partner stands against the mean of the other class.
        """
        positive, negative = contrast.positive, contrast.negative
        width = contrast.width
        return (
            torch.cat(
                [
                    positive[self.positive],
                    positive[self.alone_positive],
                    positive.mean(dim=0).expand(len(self.alone_negative), width),
                ]
            ),
            torch.cat(
                [
                    negative[self.negative],
                    negative.mean(dim=0).expand(len(self.alone_positive), width),
                    negative[self.alone_negative],
                ]
            ),
        )


def pair(contrast: Contrast) -> Pairing:
    """The pairs of two sets; no example is left out, whatever the sizes.

    Within a group the first positive stands against the first negative, the second against the
    second, and so on; where one side is shorter its examples serve again in turn. Examples of
    groups with one side only have no partner. What the groups of sets without labels are, see
    `check_contrast`.
    """
    members: dict[int, tuple[list[int], list[int]]] = {}
    n = len(contrast.positive)
    for side, labels in enumerate((contrast.groups[:n], contrast.groups[n:])):
        for row, label in enumerate(labels.tolist()):
            members.setdefault(label, ([], []))[side].append(row)
    rows: tuple[list[int], list[int]] = ([], [])
    alone: tuple[list[int], list[int]] = ([], [])
    for label in sorted(members):
        sides = members[label]
        if all(sides):
            longest = max(map(len, sides))
            for side in (0, 1):
                rows[side].extend(sides[side][i % len(sides[side])] for i in range(longest))
        else:
            for side in (0, 1):
                alone[side].extend(sides[side])
    return Pairing(*(torch.tensor(listed, dtype=torch.long) for listed in (*rows, *alone)))


def counterparts(contrast: Contrast) -> tuple[Tensor, Tensor, Tensor]:
    """Negatives `[m, d]`, the positive that stands against each `[m, d]`, and groups `[m]`.

    The pairs are those of `pair`; a negative without a partner stands against the mean of the
    positives. In float32, in which networks are trained whatever the type of the activations.
    """
    pairs = pair(contrast)
    rows = torch.cat([pairs.negative, pairs.alone_negative])
    mean = contrast.positive.mean(dim=0).expand(len(pairs.alone_negative), contrast.width)
    positive = torch.cat([contrast.positive[pairs.positive], mean])
    groups = contrast.groups[len(contrast.positive) :][rows]
    return contrast.negative[rows].float(), positive.float(), groups
