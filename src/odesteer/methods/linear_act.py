"""Linear-AcT: coordinatewise optimal transport (Rodriguez et al., ICLR 2025, arXiv 2410.23054)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method

# Coordinates fitted at a time, to bound the memory of float64 copies.
_BLOCK = 256


class LinearAcT(Method):
    """Maps every coordinate of the negatives onto the positives' by the best affine map.

    m(a) = ω⊙a + β and a' = a + λ(m(a) - a), where ωᵢ and βᵢ are the least-squares fit of the
    sorted positives to the sorted negatives of coordinate i, the optimal transport in one
    dimension. Sets of unequal sizes are matched by quantile. A coordinate in which the negatives
    are constant is shifted (ω = 1).

    ``interpolation`` is λ; above 1 it extrapolates, and a negative one applies |λ| of the map
    fitted from the positives to the negatives.

    Parameters:
        amount: default; a number is an interpolation, λ.
        support: whether coordinates outside the range of the source's examples stay as they are,
            as in the published form; otherwise the map goes on beyond it. The published form also
            fits layer by layer, each on states that earlier layers have steered
            (`odesteer.models.fit_in_order`).

    Learned: ``mean_positive_`` μ₊, ``mean_negative_`` μ₋, ``slope_`` ω and ``reverse_slope_``,
    that of the other map, `[d]`; β = μ₊ - ω⊙μ₋; with ``support`` also ``support_`` `[2, 2, d]`, the
    least and the largest coordinates of negatives and of positives.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "coordinatewise affine map, a' = a + λ(ω⊙a + β - a)"
    barrier_summary: ClassVar[str] = ""
    keeps_norm: ClassVar[bool] = False
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = "Rodriguez et al., ICLR 2025, arXiv 2410.23054"

    mean_positive_: Tensor
    mean_negative_: Tensor
    slope_: Tensor
    reverse_slope_: Tensor

    support_: Tensor

    amount_words: ClassVar[tuple[str, ...]] = ("interpolation",)
    added_parameters: ClassVar[Mapping[str, Any]] = {"support": False}

    def __init__(self, amount: Amount | float = 1.0, support: bool = False) -> None:
        self.amount = amount
        self.support = support

    def _fit(self, contrast: Contrast) -> None:
        if not isinstance(self.support, bool):
            raise InvalidInputError(f"support must be true or false, not {self.support!r}.")
        positive, negative = contrast.positive, contrast.negative
        if self.support:
            ranges = [torch.stack(torch.aminmax(a, dim=0)) for a in (negative, positive)]
            self.support_ = torch.stack(ranges)
        sets = torch.split(negative, _BLOCK, dim=1), torch.split(positive, _BLOCK, dim=1)
        slopes = [matched_slopes(low, high) for low, high in zip(*sets, strict=True)]
        self.slope_, self.reverse_slope_ = (
            torch.cat(part).to(positive.dtype) for part in zip(*slopes, strict=True)
        )
        self.mean_positive_, self.mean_negative_ = positive.mean(dim=0), negative.mean(dim=0)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        positive, negative = self.mean_positive_.to(a), self.mean_negative_.to(a)
        # Written about the means to avoid cancellation: m(a) - a = μ₊ - μ₋ + (ω - 1)(a - μ₋).
        forwards = positive - negative + (self.slope_.to(a) - 1) * (a - negative)
        backwards = negative - positive + (self.reverse_slope_.to(a) - 1) * (a - positive)
        if self.support:
            least, most = self.support_.to(a).unbind(1)
            inside = (a[..., None, :] >= least) & (a[..., None, :] <= most)
            forwards = torch.where(inside[..., 0, :], forwards, 0.0)
            backwards = torch.where(inside[..., 1, :], backwards, 0.0)
        displacement = value.abs() * torch.where(value >= 0, forwards, backwards)
        state = torch.where(value == 0, a, a + displacement)
        return Solution(state, displacement.norm(dim=-1))


def matched_slopes(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes `[k]` float64 of the least-squares fits of ``target`` to ``source``, and back.

    Columns of `[n, k]` and `[m, k]` are matched by quantile, the coupling of one-dimensional
    optimal transport; where a source does not vary but for rounding, its slope is 1.
    """
    n, m = len(source), len(target)
    device = source.device
    # Where either quantile function jumps, in units of 1/(n·m).
    jumps = [torch.arange(n + 1, device=device) * m, torch.arange(m + 1, device=device) * n]
    edges: Tensor = torch.unique(torch.cat(jumps))
    weight = (edges.diff().double() / (n * m))[:, None]
    columns, spreads, constant = [], [], []
    for a, rows in ((source, edges[:-1] // m), (target, edges[:-1] // n)):
        ordered = a.double().sort(dim=0).values
        ordered = ordered - ordered.mean(dim=0)
        spread = ordered.square().mean(dim=0)
        rounding = 16 * torch.finfo(a.dtype).eps * a.double().abs().amax(dim=0)
        columns.append(ordered[rows])
        spreads.append(spread)
        constant.append(spread.sqrt() <= rounding)
    common = (weight * columns[0] * columns[1]).sum(dim=0)
    slopes = [
        torch.where(still, 1.0, common / torch.where(still, 1.0, spread))
        for still, spread in zip(constant, spreads, strict=True)
    ]
    return slopes[0], slopes[1]
