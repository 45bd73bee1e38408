"""The mean displacement of a steerer: the constant vector that is nearest to what it does."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.artifact import Steerer, SteererSet
from odesteer.errors import InvalidInputError
from odesteer.interchange.control_vector import ControlVector, plain_site
from odesteer.methods import Amount


@dataclass(frozen=True)
class MeanDisplacement:
    """A constant vector in the place of a displacement that depends on the activation.

    Attributes:
        vector: the mean displacement for each layer.
        kept: for each layer the share of the mean squared displacement that it has,
            ‖mean δ‖²/mean ‖δ‖²: 1 where all activations move alike, 0 where they move apart.
    """

    vector: ControlVector
    kept: Mapping[int, float]


def mean_displacement(
    steerer: Steerer | SteererSet,
    activations: Mapping[int, Tensor],
    amount: Amount | None = None,
    model_hint: str | None = None,
) -> MeanDisplacement:
    """The mean displacement over ``activations``, `[n, d]` by layer, of the unsteered model.

    Raises `InvalidInputError` for steerers with a gate, of heads or without a site, for a layer
    without activations, and where nothing moves.
    """
    directions, positions, kept = {}, {}, {}
    for member in steerer.members:
        site = plain_site(member)
        if site.layer not in activations:
            raise InvalidInputError(f"there are no activations of layer {site.layer}.")
        if site.layer in directions:
            raise InvalidInputError(
                f"two steerers act at layer {site.layer}, on different tokens; export them one by"
                " one."
            )
        a = activations[site.layer].float()
        with torch.no_grad():
            moves = (member.solve(a, amount).state - a).double()
        mean = moves.mean(dim=0)
        total = float(moves.square().sum(dim=1).mean())
        if not float(mean.norm()) > 0:
            raise InvalidInputError(
                f"at {amount or member.method.default_amount} the steerer moves none of these"
                f" {len(a)} activations of layer {site.layer}; choose another amount."
            )
        directions[site.layer], positions[site.layer] = mean.float(), site.position
        kept[site.layer] = float(mean.square().sum()) / total
    return MeanDisplacement(ControlVector(directions, positions, model_hint), kept)
