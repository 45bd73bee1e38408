"""Representation engineering, the reading vector by PCA (Zou et al., arXiv 2310.01405)."""

from typing import ClassVar

from odesteer.barriers import Contrast, PrincipalDifferenceBarrier
from odesteer.barriers.linear import linear_normal
from odesteer.methods.amount import Amount
from odesteer.methods.constant import ConstantMethod


class RepE(ConstantMethod):
    """a + T·v with v the first principal component of paired differences, of length one.

    The differences are positive minus negative over pairs: within a group the first of both
    classes, the second of both, and so on, the shorter side serving again in turn; without groups,
    sets of equal size in order. An example without a partner stands against the mean of the other
    class; none is left out. The sign of v is the one with which positives score higher on average.

    T is a length in activation units; ``strength`` is the same in mean activation norms; ``level``
    clamps v·a in closed form.

    Parameters:
        strength: how far `steer` goes when nobody says, in mean activation norms.
        centred: whether the mean of the differences is taken off before their principal component,
            as published. Without, v also follows the mean difference of the classes.
        folds, seed: of the held-out quantiles that levels count in, see `Barrier`.

    Learned: ``direction_`` v `[d]`, and ``barrier_`` v·(a - (μ₊ + μ₋)/2), which also knows the
    numbers of pairs and of examples without a partner (``n_pairs_``, ``n_alone_``).
    """

    dynamics: ClassVar[str] = "constant, a' = a + Tv, v the first component of paired differences"
    barrier_summary: ClassVar[str] = "v·(a - (μ₊ + μ₋)/2)"
    reference: ClassVar[str] = "Zou et al., 2023, arXiv 2310.01405"

    barrier_: PrincipalDifferenceBarrier

    def __init__(
        self, strength: float = 0.25, centred: bool = True, folds: int = 5, seed: int = 0
    ) -> None:
        self.strength = strength
        self.centred = centred
        self.folds = folds
        self.seed = seed

    @property
    def default_amount(self) -> Amount:
        return Amount("strength", self.strength)

    def _fit(self, contrast: Contrast) -> None:
        barrier = PrincipalDifferenceBarrier(self.centred, folds=self.folds, seed=self.seed)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.direction_ = linear_normal(self.barrier_)
