"""Contrastive activation addition (Rimsky et al., ACL 2024, arXiv 2312.06681)."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, MeanDifferenceBarrier
from odesteer.errors import InvalidInputError
from odesteer.flows import ConstantField, Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method


class CAA(Method):
    """a + T·(μ₊ - μ₋): one Euler step along a constant field.

    T multiplies the mean difference, which is not normalised; ``strength`` is the length of the
    displacement in mean activation norms; ``level`` clamps the projection on the direction at a
    multiple of the 90 % quantile over positives, in closed form.

    Parameters:
        T: the multiplier when nobody says how much.
        folds, seed: of the held-out quantiles that levels count in, see `Barrier`.

    Learned: ``direction_`` μ₊ - μ₋ `[d]`, and ``barrier_`` (μ₊ - μ₋)·(a - (μ₊ + μ₋)/2).
    """

    quantities: ClassVar[tuple[str, ...]] = ("strength", "level", "T")
    reference: ClassVar[str] = "Rimsky et al., ACL 2024, arXiv 2312.06681"

    barrier_: MeanDifferenceBarrier
    direction_: Tensor

    def __init__(self, T: float = 1.0, folds: int = 5, seed: int = 0) -> None:
        self.T = T
        self.folds = folds
        self.seed = seed

    @property
    def default_amount(self) -> Amount:
        return Amount("T", self.T)

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier; its gradient is the direction."""
        self.check_fitted()
        return self.barrier_

    @property
    def field(self) -> ConstantField:
        self.check_fitted()
        return ConstantField(self.direction_)

    def _fit(self, contrast: Contrast) -> None:
        barrier = MeanDifferenceBarrier(folds=self.folds, seed=self.seed)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.direction_ = contrast.positive.mean(dim=0) - contrast.negative.mean(dim=0)
        rounding = 16 * torch.finfo(self.direction_.dtype).eps * self.mean_norm_
        if not float(self.direction_.norm()) > rounding:
            raise InvalidInputError("the means of both classes are equal; there is no direction.")

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        direction = self.direction_.to(a)
        length = direction.norm()
        reached = None
        if amount.quantity == "level":
            # h(a + t·w) = h(a) + t‖w‖², so the crossing has a closed form.
            h, level = self.barrier_.value(a), torch.as_tensor(amount.value).to(a)
            missing = (self.barrier_.threshold(level) - h) / length.square()
            multiplier = torch.where(level >= 0, missing.clamp_min(0), missing.clamp_max(0))
            reached = torch.ones_like(h, dtype=torch.bool)
        elif amount.quantity == "strength":
            multiplier = torch.as_tensor(amount.value).to(a) * self.mean_norm_ / length
        else:
            multiplier = torch.as_tensor(amount.value).to(a)
        multiplier = multiplier.expand(a.shape[:-1])
        return Solution(
            a + multiplier[..., None] * direction, multiplier.abs() * length, reached=reached
        )
