"""Steerers that are gated by the prompt, for the first of the texts only."""

from typing import Any

import torch
from steerers import TEXTS, Watch, WatchInputs, steerer
from torch import Tensor

from odesteer.artifact import Site, Steerer
from odesteer.barriers import LinearBarrier
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel


def prompt_states(lm: SteeredModel, text: str, layer: int, part: str = "residual") -> Tensor:
    """Activations `[tokens, d]` of a prompt alone."""
    places = lm._sites.at(layer, part)
    watch = (Watch if part == "residual" else WatchInputs)(places.module)
    with watch, torch.no_grad():
        lm.model(torch.tensor([lm.encode(text).ids]))
    return watch.states[0][0]


def condition_between(
    lm: SteeredModel, layer: int, part: str = "residual", pool: str = "last"
) -> Steerer:
    """A condition that is met by the first of the texts and not by the others."""
    found = [prompt_states(lm, text, layer, part) for text in TEXTS]
    pooled = torch.stack([a[-1] if pool == "last" else a.mean(dim=0) for a in found])
    noise = 0.01 * torch.randn(6, pooled.shape[1], generator=torch.Generator().manual_seed(0))
    positive = pooled[:1].expand(6, -1) + noise
    negative = pooled[1:].repeat(3, 1) + noise
    method = ODESteer(barrier=LinearBarrier(C=1e4, folds=0))
    return Steerer(method.fit(positive, negative), Site(layer, part=part))


def gated(
    lm: SteeredModel, layer: int = 2, at: int = 1, position: str = "last", **options: Any
) -> Steerer:
    """A steerer for the first of the texts only."""
    pool, part = options.get("pool", "last"), options.get("part", "residual")
    condition = condition_between(lm, at, part, pool)
    return steerer(layer=layer, position=position).when(condition, above=0, pool=pool)
