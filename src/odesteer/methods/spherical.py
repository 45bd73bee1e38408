"""Spherical steering: the flow of a linear barrier on the unit sphere, in closed form."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier, UnitSphere
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.errors import InvalidInputError
from odesteer.flows import GradientField, Solution
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method
from odesteer.methods.rotation import Rotation


class Spherical(Method):
    """Rotates an activation towards the mean difference of directions; keeps its norm exactly.

    The barrier h(a) = w·a/‖a‖ + b, w the difference of the classes' mean unit activations, has
    the gradient flow that turns ``a`` in the plane of ``a`` and w at unit speed. With φ the angle
    between them h = ‖w‖cos φ + b and φ(t) = φ(0) - t/‖a‖, so the flow to a level has a closed
    form. Values are in units of ‖w‖, not nats.

    Parameters:
        amount: default; a number is a level of the barrier.
        max_strength: the cap on the arc length of a flow to a level, in class
            deviations.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``barrier_`` and ``direction_``, the unit vector w/‖w‖ `[d]`.
    """

    quantities: ClassVar[tuple[str, ...]] = ("level", "T", "strength")
    dynamics: ClassVar[str] = "rotation of a towards w, in the plane of a and w"
    barrier_summary: ClassVar[str] = "w·a/‖a‖ + b, w the difference of mean directions"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = (
        "You et al., 2026, arXiv 2602.08169; here the flow of a linear barrier on the sphere"
    )

    barrier_: MeanDifferenceBarrier
    direction_: Tensor

    amount_words: ClassVar[tuple[str, ...]] = ("level",)

    def __init__(
        self,
        amount: Amount | float = 1.5,
        max_strength: float = 10.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.amount = amount
        self.max_strength = max_strength
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier."""
        self.check_fitted()
        return self.barrier_

    @property
    def field(self) -> GradientField:
        """The vector field of unit speed."""
        return GradientField(self.barrier)

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        barrier = MeanDifferenceBarrier(UnitSphere(), fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        unit = UnitSphere()
        weight = unit(contrast.positive).mean(dim=0) - unit(contrast.negative).mean(dim=0)
        if not float(weight.norm()) > 16 * torch.finfo(weight.dtype).eps:
            raise InvalidInputError(
                "the mean directions of both classes are equal, so there is none to turn to."
            )
        self.direction_ = torch.nn.functional.normalize(weight, dim=0)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        rotation = Rotation.towards(self.direction_.to(a), a)
        angle, norm = rotation.angle, rotation.norm
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        if amount.quantity == "level":
            goal, reachable = self._angle_at(value)
            cap = self.max_strength * self.strength_unit / norm
            wanted = torch.where(
                value >= 0, (angle - goal).clamp_min(0), (angle - goal).clamp_max(0)
            )
            turn = torch.maximum(torch.minimum(wanted, cap), -cap)
        else:
            scale = self.strength_unit if amount.quantity == "strength" else 1.0
            turn = torch.minimum(torch.maximum(value * scale / norm, angle - torch.pi), angle)
        turn = torch.where(rotation.has_plane, turn, 0.0)
        reached = None
        if amount.quantity == "level":
            reached = (reachable & (turn == wanted))[..., 0]
        arc = (turn.abs() * norm)[..., 0]
        return Solution(rotation.turned(turn), arc, reached=reached)

    def _angle_at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """The angle to w at which h has the value of a level, and whether it exists."""
        function = self.barrier_.function_
        assert isinstance(function, QuadraticFunction)  # the function of a mean difference
        length = 2 * float(function.slope_[0])
        tau = torch.as_tensor(self.barrier_.threshold(level)).to(level)
        cosine = (tau - function.offset_) / length
        return torch.arccos(cosine.clamp(-1, 1)), cosine.abs() <= 1
