"""Linear feedback to a setpoint: the method that linear-quadratic control over layers gives."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier
from odesteer.barriers.linear import linear_normal
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.untrusted import is_number

Origin = Literal["negative", "zero"]


class Setpoint(Method):
    """a + λ(c - v·a)w: along w, in proportion to what v·a lacks to the setpoint c.

    v is the unit mean difference, r/‖r‖ with r = μ₊ - μ₋, and c = v·μ₋ + s‖r‖, so that s = 0 is the
    mean of the negatives and s = 1 that of the positives; with ``origin="zero"`` c = s‖r‖, as
    published. After `fit` w = v, proportional feedback, which is `Ablation` with a target for
    λ = 1. `odesteer.artifact.lqr` replaces w, at every site of a set, by the direction that
    linear-quadratic control takes: it looks ahead to what later layers make of it, and weighs
    errors against interventions (A-LQR, arXiv 2604.19018). Activations are moved from both sides.

    Parameters:
        setpoint: s, in units of the distance of the class means.
        origin: where s counts from: the mean of the ``negative`` examples, or ``zero``.
        amount: default; a number is an interpolation, λ.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``readout_`` v `[d]`, ``direction_`` w `[d]`, ``component_`` c, activation units, and
    ``barrier_`` (μ₊ - μ₋)·(a - (μ₊ + μ₋)/2).
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "a' = a + λ(c - v·a)w, v along μ₊ - μ₋"
    barrier_summary: ClassVar[str] = "(μ₊ - μ₋)·(a - (μ₊ + μ₋)/2)"
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = (
        "Skifstad et al., 2026, arXiv 2604.19018 (A-LQR), with odesteer.artifact.lqr"
    )

    barrier_: MeanDifferenceBarrier
    readout_: Tensor
    direction_: Tensor
    component_: float

    def __init__(
        self,
        setpoint: float = 1.0,
        origin: Origin = "negative",
        amount: Amount | float = 1.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.setpoint = setpoint
        self.origin = origin
        self.amount = amount
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier, which rises along v."""
        self.check_fitted()
        return self.barrier_

    def along(self, direction: Tensor) -> Self:
        """A fitted copy with another w `[d]`."""
        self.check_fitted()
        copy = self.to()
        copy.direction_ = direction.to(self.readout_)
        return copy

    def _fit(self, contrast: Contrast) -> None:
        if not is_number(self.setpoint):
            raise InvalidInputError(f"setpoint must be a finite number, not {self.setpoint!r}.")
        if self.origin not in get_args(Origin):
            raise InvalidInputError(
                f"origin must be {' or '.join(get_args(Origin))}, not {self.origin!r}."
            )
        barrier = MeanDifferenceBarrier(fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        normal = linear_normal(self.barrier_)
        self.readout_ = self.direction_ = normal / normal.norm()
        means = [side.double().mean(dim=0) for side in (contrast.positive, contrast.negative)]
        start = float(means[1] @ self.readout_.double()) if self.origin == "negative" else 0.0
        self.component_ = start + self.setpoint * float((means[0] - means[1]).norm())

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        direction = self.direction_.to(a)
        share = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        missing = share * (self.component_ - a @ self.readout_.to(a))
        state = torch.where(missing[..., None] == 0, a, a + missing[..., None] * direction)
        return Solution(state, missing.abs() * direction.norm())
