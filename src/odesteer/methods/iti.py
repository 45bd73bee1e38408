"""Inference-time intervention on the residual stream (Li et al., NeurIPS 2023)."""

from typing import ClassVar

from odesteer.barriers import Barrier, Contrast, LogisticProbeBarrier
from odesteer.barriers.linear import linear_normal
from odesteer.methods.amount import Amount
from odesteer.methods.constant import ConstantMethod


class ITI(ConstantMethod):
    """a + T·θ with θ the unit normal of a logistic probe: the residual form of ITI.

    The form in which arXiv 2602.17560 compares ITI; `HeadITI` is the original, which acts on
    attention heads. T is a length in activation units; ``strength`` is the same in mean activation
    norms; ``level`` clamps the logit of the probe in closed form.

    Parameters:
        strength: how far `steer` goes when nobody says, in mean activation norms.
        probe: the linear barrier whose normal is θ; the published probe by default.
            `LinearBarrier` is the same probe at its optimum, `MeanDifferenceBarrier` the mass mean
            shift of the paper.

    Learned: ``direction_`` θ `[d]`, and ``barrier_``, the fitted probe: its logit plus log(n₋/n₊),
    in nats.
    """

    dynamics: ClassVar[str] = "constant, a' = a + Tθ, θ the unit normal of a logistic probe"
    barrier_summary: ClassVar[str] = "logit of the probe, w·a + b, plus log(n₋/n₊)"
    reference: ClassVar[str] = "Li et al., NeurIPS 2023, arXiv 2306.03341"

    def __init__(self, strength: float = 0.25, probe: Barrier = LogisticProbeBarrier()) -> None:
        self.strength = strength
        self.probe = probe

    @property
    def default_amount(self) -> Amount:
        return Amount("strength", self.strength)

    def _fit(self, contrast: Contrast) -> None:
        self.barrier_ = self.probe.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )
        self.direction_ = linear_normal(self.barrier_)
