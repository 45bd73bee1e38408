"""Where each negative example is to go."""

import torch
from torch import Tensor

from odesteer.barriers import Contrast, pair
from odesteer.barriers.pairing import with_pairs_as_groups


def counterparts(contrast: Contrast) -> tuple[Tensor, Tensor, Tensor]:
    """Negatives `[m, d]`, the positive that stands against each `[m, d]`, and groups `[m]`.

    The pairs are those of `pair`; a negative without a partner stands against the mean of the
    positives. In float32, in which networks are trained whatever the type of the activations.
    """
    contrast = with_pairs_as_groups(contrast)
    pairs = pair(contrast)
    rows = torch.cat([pairs.negative, pairs.alone_negative])
    mean = contrast.positive.mean(dim=0).expand(len(pairs.alone_negative), contrast.width)
    positive = torch.cat([contrast.positive[pairs.positive], mean])
    groups = contrast.groups[len(contrast.positive) :][rows]
    return contrast.negative[rows].float(), positive.float(), groups
