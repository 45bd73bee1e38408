"""Directional ablation and affine concept editing: one component set to a value."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier
from odesteer.barriers.linear import linear_normal
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method

Target = Literal["zero", "positive", "negative"]


class Ablation(Method):
    """a + λ(c - a·r̂)r̂, with r̂ the unit mean difference: a·r̂ = c for λ = 1, from both sides.

    c = 0 takes the direction out of the activation (directional ablation, Arditi et al.); c the
    mean of a·r̂ over one of the classes is affine concept editing (Marshall et al.). With λ = 1
    the map is idempotent. It is the flow of da/dt = (c - a·r̂)r̂ for an infinite time, and a level of
    the linear barrier that is held from both sides (`TwoSided` holds any barrier).

    Parameters:
        target: c: `zero`, or the mean over `positive` or `negative` examples.
        amount: default; a number is an interpolation, λ.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``direction_`` r̂ `[d]`, ``component_`` c, activation units, and ``barrier_``
    (μ₊ - μ₋)·(a - (μ₊ + μ₋)/2), which tells on which side an activation is.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "a' = a + λ(c - a·r̂)r̂, r̂ along μ₊ - μ₋"
    barrier_summary: ClassVar[str] = "(μ₊ - μ₋)·(a - (μ₊ + μ₋)/2)"
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = (
        "Arditi et al., NeurIPS 2024, arXiv 2406.11717; c ≠ 0: Marshall et al., arXiv 2411.09003"
    )

    barrier_: MeanDifferenceBarrier
    direction_: Tensor
    component_: float

    def __init__(
        self,
        target: Target = "zero",
        amount: Amount | float = 1.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.target = target
        self.amount = amount
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier, which rises along the direction."""
        self.check_fitted()
        return self.barrier_

    def _fit(self, contrast: Contrast) -> None:
        if self.target not in get_args(Target):
            raise InvalidInputError(
                f"target must be {', '.join(get_args(Target))}, not {self.target!r}."
            )
        barrier = MeanDifferenceBarrier(fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        normal = linear_normal(self.barrier_)
        self.direction_ = normal / normal.norm()
        sides = {"positive": contrast.positive, "negative": contrast.negative}
        self.component_ = (
            float((sides[self.target] @ self.direction_).double().mean())
            if self.target in sides
            else 0.0
        )

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        direction = self.direction_.to(a)
        share = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        missing = share * (self.component_ - a @ direction)
        state = torch.where(missing[..., None] == 0, a, a + missing[..., None] * direction)
        return Solution(state, missing.abs())
