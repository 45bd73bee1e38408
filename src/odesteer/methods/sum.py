"""Weighted sum of several methods."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Barrier, Contrast
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Solution, SumField
from odesteer.methods.amount import QUANTITIES, Amount
from odesteer.methods.base import Method
from odesteer.methods.constant import CAA
from odesteer.methods.spherical import Spherical
from odesteer.untrusted import is_number

# Relative tolerance within which a level counts as reached, for rounding.
_TOLERANCE = 1e-3


class Sum(Method):
    """a + λ·Σᵢ wᵢ(steerᵢ(a) - a): the weighted sum of the displacements of several methods.

    Every method starts from ``a``. ``interpolation`` is λ, with each method at its own default;
    ``T``, ``strength`` and ``level`` go to every method, each in its own units and up its own
    barrier, and exist where all methods have them. Since displacements add up, a row need not end
    at the level: ``reached`` is true for rows where all barriers are at it in the end. To reach
    a level of several barriers at once, climb a `MinimumBarrier` with `ODESteer` instead.

    Parameters:
        methods: the methods; after `fit`, the fitted ones, all on the same examples. For methods
            fitted on different examples, see `of`.
        weights: wᵢ, finite; None for 1 each.
    """

    dynamics: ClassVar[str] = "a' = a + λ·Σᵢ wᵢ(steerᵢ(a) - a)"
    barrier_summary: ClassVar[str] = ""
    solver_summary: ClassVar[str] = "each method's own"
    cost: ClassVar[str] = "the sum of the methods'"
    reference: ClassVar[str] = "this project; a sum of fields, to first order in T"

    methods = FittedPart[tuple[Method, ...]]()
    methods_: tuple[Method, ...]

    def __init__(
        self,
        methods: tuple[Method, ...] = (CAA(), Spherical()),
        weights: tuple[float, ...] | None = None,
    ) -> None:
        self.methods = methods
        self.weights = weights

    @classmethod
    def of(cls, *methods: Method, weights: tuple[float, ...] | None = None) -> Self:
        """The sum of fitted methods, which are not fitted again and may come from different data.

        Raises `NotFittedError` if one is not fitted, and `InvalidInputError` if they differ in
        width. Its mean norm and strength unit are the means of theirs; each counts strength in
        its own.
        """
        total = cls(methods, weights)
        total._check()
        for method in methods:
            method.check_fitted()
        widths = {method.width_ for method in methods}
        if len(widths) > 1:
            raise InvalidInputError(
                f"the methods were fitted on widths {' and '.join(map(str, sorted(widths)))};"
                " all must come from the same layer of the same model."
            )
        total.width_ = widths.pop()
        total.mean_norm_ = math.fsum(method.mean_norm_ for method in methods) / len(methods)
        units = [method.strength_unit for method in methods]
        total.strength_unit_ = math.fsum(units) / len(methods)
        return total

    # A property, since they depend on the methods.
    @property
    def quantities(self) -> tuple[str, ...]:  # type: ignore[override]
        shared = (q for q in QUANTITIES if all(q in m.quantities for m in self.methods))
        return ("interpolation", *(q for q in shared if q != "interpolation"))

    @property
    def default_amount(self) -> Amount:
        return Amount("interpolation", 1.0)

    @property
    def field(self) -> SumField:
        """Σᵢ wᵢvᵢ, where all methods have a field: the sum for small T."""
        fields: list[Any] = [method.field for method in self.methods]  # type: ignore[attr-defined]
        self.check_fitted()
        return SumField(fields, self._weights())

    def constant_displacement(self, amount: Amount | None = None) -> Tensor | None:
        self.check_fitted()
        amount = self.default_amount if amount is None else amount
        self.check_amount(amount)
        if isinstance(amount.value, Tensor):
            return None
        whole = amount.quantity == "interpolation"
        parts = [method.constant_displacement(None if whole else amount) for method in self.methods]
        scale = float(amount.value) if whole else 1.0
        total: Tensor | None = None
        for weight, part in zip(self._weights(), parts, strict=True):
            if part is None:
                return None
            scaled = scale * weight * part
            total = scaled if total is None else total + scaled
        return total

    def _fit(self, contrast: Contrast) -> None:
        self._check()
        arguments = contrast.positive, contrast.negative, contrast.group_pair
        self.methods_ = tuple(method.clone().fit(*arguments) for method in self.methods)

    def _check(self) -> None:
        methods, weights = self.methods, self.weights
        if not isinstance(methods, (list, tuple)) or len(methods) == 0:
            raise InvalidInputError(
                f"Sum adds up methods, as in Sum((CAA(), Spherical())), not {methods!r:.80}."
            )
        for i, method in enumerate(methods):
            if not isinstance(method, Method):
                raise InvalidInputError(f"method {i} of Sum is {method!r:.80}, no method.")
        if weights is None:
            return
        if not isinstance(weights, (list, tuple)) or len(weights) != len(methods):
            raise InvalidInputError(
                f"Sum has {len(methods)} methods and the weights {weights!r:.80}; give a number"
                " to each."
            )
        for i, weight in enumerate(weights):
            if not is_number(weight):
                raise InvalidInputError(f"weight {i} of Sum is {weight!r}, no finite number.")

    def _weights(self) -> tuple[float, ...]:
        return (1.0,) * len(self.methods) if self.weights is None else self.weights

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        whole = amount.quantity == "interpolation"
        displacement = torch.zeros_like(a)
        for weight, method in zip(self._weights(), self.methods, strict=True):
            steered = method.solve_usable(a, None if whole else amount).state
            displacement = displacement + weight * (steered - a)
        if whole:
            scale = torch.as_tensor(amount.value).to(a).expand(a.shape[:-1])
            displacement = scale[..., None] * displacement
        state = torch.where(displacement == 0, a, a + displacement)
        reached = None
        if amount.quantity == "level":
            reached = torch.ones_like(a[..., 0], dtype=torch.bool)
            for method in self.methods:
                reached = reached & _has_reached(method.barrier, a, state, amount.value)  # type: ignore[attr-defined]
        return Solution(state, displacement.norm(dim=-1), reached=reached)


def _has_reached(barrier: Barrier, a: Tensor, state: Tensor, level: float | Tensor) -> Tensor:
    """Whether ``state`` is at the level, up to a thousandth of the change of h from ``a``."""
    tau = torch.as_tensor(barrier.threshold(level)).to(a)
    sign = torch.where(torch.as_tensor(level).to(a) >= 0, 1.0, -1.0).to(a)
    missing = (sign * (tau - barrier.value(a))).clamp_min(0)
    return sign * (tau - barrier.value(state)) <= _TOLERANCE * missing
