"""Rotations of activations towards a direction, at constant norm."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True)
class Rotation:
    """Rotations of activations `[..., d]`, each in the plane of itself and a direction.

    Attributes:
        a: the activations.
        norm: their norms `[..., 1]`.
        tangent: the unit tangent towards the direction `[..., d]`.
        angle: between activation and direction, radians in [0, π], `[..., 1]`.
        has_plane: False for activations parallel to the direction up to rounding, `[..., 1]`.
    """

    a: Tensor
    norm: Tensor
    tangent: Tensor
    angle: Tensor
    has_plane: Tensor

    @classmethod
    def towards(cls, direction: Tensor, a: Tensor) -> Self:
        """Rotations of finite, nonzero activations towards a unit vector `[d]`."""
        norm = a.norm(dim=-1, keepdim=True)
        unit = a / norm
        cosine = (unit @ direction)[..., None]
        # From the length of the rejection, since 1 - cos² loses small angles to rounding.
        across = direction - cosine * unit
        sine = across.norm(dim=-1, keepdim=True)
        limits = torch.finfo(a.dtype)
        tangent = across / sine.clamp_min(limits.tiny)
        return cls(a, norm, tangent, torch.atan2(sine, cosine), sine > 8 * limits.eps)

    def turned(self, turn: Tensor) -> Tensor:
        """The activations turned by ``turn`` radians `[..., 1]`; unchanged to the bit where 0."""
        state = torch.cos(turn) * self.a + torch.sin(turn) * self.norm * self.tangent
        # Rescaled, so that rounding does not change the norm.
        state = state * (self.norm / state.norm(dim=-1, keepdim=True))
        return torch.where(turn == 0, self.a, state)
