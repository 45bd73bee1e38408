"""A method and how much to steer, checked once for many steps of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from odesteer.flows import FlowInPlace, Solution

if TYPE_CHECKING:
    from torch import Tensor

    from odesteer.methods.amount import CheckedAmount
    from odesteer.methods.base import Method


@dataclass(eq=False)
class Prepared:
    """What `Method.prepared` returns: no check is left to do, and nothing to wait for.

    Attributes:
        method: the fitted method.
        amount: how much.
        in_place: moves them where they lie; None where only `solve` does.
    """

    method: Method
    amount: CheckedAmount
    in_place: FlowInPlace | None = None

    def solve(self, a: Tensor) -> Solution:
        """As `Method.solve`; for `[n, 1, d]` to the bit what ``in_place`` moves."""
        if self.in_place is not None and a.ndim == 3 and a.shape[1] == 1:
            solution = self.in_place.solve(a)
            if solution is not None:
                return solution
        return self.method.solve(a, self.amount)
