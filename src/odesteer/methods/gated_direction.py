"""A direction behind a linear gate that is nearly closed on benign activations."""

from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.flows.metrics import least_energy_directions
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.untrusted import is_number


class GatedDirection(Method):
    """a + T·max(0, w·a + b)z: the mean difference z, by as much as a linear gate opens.

    The gate is 1 on negatives in the sense of least squares, and w lies in the directions that
    positives use least, so that activations like them are left nearly alone:
    w = argmin ‖H₋w - 1‖² + λ‖w‖² over the span of the ``null_share`` eigenvectors of H₊ᵀH₊ with the
    smallest eigenvalues, and b = 0. This is the map of AlphaSteer, which has rank one: a gated
    direction takes O(d), its matrix O(d²). Steering vectors from prompts (PSR) have the same form.

    ``T`` multiplies z; ``strength`` is the length of the displacement where the gate is 1, in class
    deviations.

    Parameters:
        null_share: the share of directions that w may use, above 0 and at most 1.
        ridge: λ, as a share of the mean energy of the negatives in these directions.
        amount: default; a number is a strength, in class deviations.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``direction_`` z = μ₊ - μ₋ `[d]`, ``gate_weight_`` w `[d]`, and ``barrier_``
    (μ₊ - μ₋)·(a - (μ₊ + μ₋)/2).
    """

    quantities: ClassVar[tuple[str, ...]] = ("strength", "T")
    dynamics: ClassVar[str] = "a' = a + T·max(0, w·a)(μ₊ - μ₋)"
    barrier_summary: ClassVar[str] = "(μ₊ - μ₋)·(a - (μ₊ + μ₋)/2)"
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = "AlphaSteer, arXiv 2506.07022, in rank one"

    barrier_: MeanDifferenceBarrier
    direction_: Tensor
    gate_weight_: Tensor

    def __init__(
        self,
        null_share: float = 0.5,
        ridge: float = 0.01,
        amount: Amount | float = Amount("T", 1.0),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.null_share = null_share
        self.ridge = ridge
        self.amount = amount
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier, which rises along the direction."""
        self.check_fitted()
        return self.barrier_

    def acts(self, a: Tensor) -> Tensor:
        """Where the gate is open, `[..., d] -> [...]`."""
        self.check_fitted()
        return a @ self.gate_weight_.to(a) > 0

    def _fit(self, contrast: Contrast) -> None:
        if not is_number(self.ridge) or not self.ridge > 0:
            raise InvalidInputError(f"ridge must be above 0, not {self.ridge!r}.")
        barrier = MeanDifferenceBarrier(fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.direction_ = contrast.positive.mean(dim=0) - contrast.negative.mean(dim=0)
        axes = least_energy_directions(contrast.positive, self.null_share)
        rows = contrast.negative.double() @ axes
        moment = rows.T @ rows
        penalty = self.ridge * float(moment.diagonal().mean())
        if not penalty > 0:
            raise InvalidInputError(
                "the negatives have no component in the directions that positives use least;"
                " raise null_share."
            )
        weight = torch.linalg.solve(
            moment + penalty * torch.eye(len(moment), dtype=moment.dtype), rows.sum(dim=0)
        )
        self.gate_weight_ = (axes @ weight).to(self.direction_)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        direction = self.direction_.to(a)
        length = direction.norm()
        multiplier = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        if amount.quantity == "strength":
            multiplier = multiplier * self.strength_unit / length
        multiplier = multiplier * (a @ self.gate_weight_.to(a)).clamp_min(0)
        state = torch.where(multiplier[..., None] == 0, a, a + multiplier[..., None] * direction)
        return Solution(state, multiplier.abs() * length)
