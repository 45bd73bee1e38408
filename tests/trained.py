"""Barriers that are learned through a model, with drawn values where no model is at hand."""

from typing import Any

import torch
from torch import Tensor

from odesteer.methods import EndToEnd, Method


def fitted(method: Method, positive: Tensor, negative: Tensor, *groups: Any) -> Method:
    """A method after `fit`; one that needs a model with drawn values in its barrier."""
    if not isinstance(method, EndToEnd):
        return method.clone().fit(positive, negative, *groups)
    begun = method.begun(torch.cat([positive, negative]).float())
    generator = torch.Generator().manual_seed(5)
    leaves = {
        name: leaf + torch.randn(leaf.shape, generator=generator) / leaf.numel() ** 0.5
        for name, leaf in begun.barrier_.function_.leaves().items()
    }
    return begun.with_leaves(leaves).calibrated(gain=2.0, rise=1.0, start=0.1)
