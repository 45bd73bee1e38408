"""Spherical Steering as published: a share of the angle, behind a gate of its own."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier, UnitSphere
from odesteer.barriers.linear import linear_normal
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.rotation import Rotation
from odesteer.untrusted import is_number


class SphericalSteering(Method):
    """Turns an activation by a share of its angle to r̂, where it points the other way; keeps ‖a‖.

    With r̂ the unit difference of the class means, δ(a) = -tanh(κ r̂·a/‖a‖) is above 0 where a
    points to the negatives. Activations with δ > β turn towards r̂ by the share
    min(1, λ(δ - β)/(1 - β)) of the angle between a and r̂; the others stay to the bit. So the gate
    is the level -artanh(β)/κ of the barrier r̂·a/‖a‖, which has no centre. `Spherical` is the flow
    of a centred barrier to a level instead.

    A token opposite to r̂ has no plane to turn in, and stays.

    Parameters:
        concentration: κ, positive.
        threshold: β, at least -1 and below 1; -1 has no gate.
        amount: default; a number is an interpolation, λ. Negative ones turn away from r̂, by
            shares of the angle to -r̂, where δ of the opposite is above β.
        fitting: of the held-out quantiles of the barrier, see `Fitting`.

    Learned: ``direction_`` r̂ `[d]`, and ``barrier_``, the mean difference of directions.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "rotation towards r̂ by a share of the angle, where -tanh(κ cos) > β"
    barrier_summary: ClassVar[str] = "w·a/‖a‖ + b, w the difference of mean directions"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = "You et al., 2026, arXiv 2602.08169"

    barrier_: MeanDifferenceBarrier
    direction_: Tensor

    def __init__(
        self,
        concentration: float = 20.0,
        threshold: float = 0.1,
        amount: Amount | float = 0.15,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.concentration = concentration
        self.threshold = threshold
        self.amount = amount
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier; the gate is another level of nearly the same direction."""
        self.check_fitted()
        return self.barrier_

    def acts(self, a: Tensor) -> Tensor:
        """Where a positive amount moves, `[..., d] -> [...]`."""
        self.check_fitted()
        cosine = torch.nn.functional.normalize(a, dim=-1) @ self.direction_.to(a)
        return torch.tanh(-self.concentration * cosine) > self.threshold

    def _fit(self, contrast: Contrast) -> None:
        if not is_number(self.concentration) or not self.concentration > 0:
            raise InvalidInputError(f"concentration must be above 0, not {self.concentration!r}.")
        if not is_number(self.threshold) or not -1 <= self.threshold < 1:
            raise InvalidInputError(
                f"threshold must be at least -1 and below 1, not {self.threshold!r}."
            )
        normal = linear_normal(
            MeanDifferenceBarrier(fitting=Fitting(folds=0)).fit(
                contrast.positive, contrast.negative
            )
        )
        self.direction_ = normal / normal.norm()
        barrier = MeanDifferenceBarrier(UnitSphere(), fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        rotation = Rotation.towards(self.direction_.to(a), a)
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        cosine = torch.cos(rotation.angle) * torch.where(value >= 0, 1.0, -1.0).to(a)
        opposed = torch.tanh(-self.concentration * cosine)
        share = value.abs() * (opposed - self.threshold) / (1 - self.threshold)
        left = torch.where(value >= 0, rotation.angle, rotation.angle - torch.pi)
        turn = torch.where(rotation.has_plane, share.clamp(0, 1) * left, 0.0)
        return Solution(rotation.turned(turn), (turn.abs() * rotation.norm)[..., 0])
