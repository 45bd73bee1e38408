"""Base class of steering methods: fit, steer, prepare for decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast, Groups, check_contrast
from odesteer.errors import InvalidInputError
from odesteer.estimator import Estimator
from odesteer.flows import FlowInPlace, Solution
from odesteer.methods.amount import Amount, CheckedAmount


class Method(Estimator, ABC):
    """A steering method: fitted on two sets of activations, moves activations.

    A subclass states its ``quantities`` and implements `_fit` and `_solve`. Methods that climb a
    barrier have an attribute ``barrier``; others do not have the attribute.

    Attributes of the class, from which the table of methods is made (`odesteer methods`):
        quantities: the quantities that `steer` takes, the natural one first. Those of a method
            around another are the inner one's, so read them from the instance.
        dynamics: the field or the map.
        barrier_summary: the barrier it climbs, "" for none.
        solver_summary: how the field is followed or the map is evaluated.
        keeps_norm: whether ‖a‖ stays as it is.
        cost: of steering one token, in operations.
        reference: the paper.

    Learned: ``width_`` (d) and ``mean_norm_``, the mean Euclidean norm of the activations it was
    fitted to, in activation units; `strength` counts in it.
    """

    family: ClassVar[str] = "method"
    quantities: ClassVar[tuple[str, ...]]
    dynamics: ClassVar[str] = ""
    barrier_summary: ClassVar[str] = ""
    solver_summary: ClassVar[str] = "closed form"
    keeps_norm: ClassVar[bool] = False
    cost: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    width_: int
    mean_norm_: float

    def fit(self, positive: Tensor, negative: Tensor, groups: Groups | None = None) -> Self:
        """Fit to activations of desirable and undesirable examples, `[n₊, d]` and `[n₋, d]`.

        ``groups`` is a pair of label sequences (n₊ and n₋ long); examples that share a label are
        never split between folds. Raises `InvalidInputError` for sets that cannot be fitted to.
        """
        contrast = check_contrast(positive, negative, groups)
        self.forget()
        try:
            self.width_ = contrast.width
            norms = torch.cat([contrast.positive.norm(dim=1), contrast.negative.norm(dim=1)])
            self.mean_norm_ = float(norms.double().mean())
            self._fit(contrast)
        except BaseException:
            self.forget()  # never half fitted
            raise
        return self

    def steer(
        self,
        a: Tensor,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        interpolation: float | Tensor | None = None,
    ) -> Tensor:
        """The steered activations, `[..., d] -> [..., d]`, in the type of ``a``.

        At most one quantity is given (default: the method's own). A tensor gives one value
        for each activation and must broadcast against ``a.shape[:-1]``. Activations that are zero
        or not finite come back unchanged. ``a`` itself is not modified.
        """
        amount = Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)
        return self.solve(a, amount).state

    def solve(self, a: Tensor, amount: Amount | None = None) -> Solution:
        """As `steer`, with arc length and status of each activation (`Solution`)."""
        amount = self._checked(a, amount)
        x, usable = self._usable(a)
        # Unusable rows are replaced by ones and put back at the end, which avoids a
        # data-dependent branch.
        solution = self._solve(torch.where(usable[..., None], x, 1.0), amount)
        return solution.keep_unusable(a, usable)

    def prepared(self, amount: Amount, a: Tensor) -> Prepared:
        """Check an amount once for many decoding steps with activations like ``a`` `[n, 1, d]`.

        Raises as `solve` does.
        """
        return Prepared(self, self._checked(a, amount))

    def solve_usable(self, a: Tensor, amount: Amount | None = None) -> Solution:
        """As `solve` without its checks, for methods that wrap this one.

        ``a`` must be finite, nonzero, in float32 or float64 and of the right width, and tensors
        in ``amount`` in its type.
        """
        return self._solve(a, self.default_amount if amount is None else amount)

    def _checked(self, a: Tensor, amount: Amount | None) -> CheckedAmount:
        """The amount (or the default) after all checks, in the type that ``a`` is steered in."""
        if isinstance(amount, CheckedAmount):
            return amount
        self.check_fitted()
        if a.ndim < 1 or a.shape[-1] != self.width_ or not a.is_floating_point():
            raise InvalidInputError(
                f"activations are {a.dtype} of shape {tuple(a.shape)}; this method was fitted on"
                f" width {self.width_} and takes floating-point tensors [..., {self.width_}]."
            )
        amount = self.default_amount if amount is None else amount
        self.check_amount(amount)
        value = amount.value
        if not isinstance(value, Tensor):
            return CheckedAmount(amount.quantity, value)
        try:
            torch.broadcast_to(value, a.shape[:-1])
        except RuntimeError:
            raise InvalidInputError(
                f"{amount.quantity} has shape {tuple(value.shape)}, which does not"
                f" broadcast against activations {tuple(a.shape[:-1])} x {self.width_}."
            ) from None
        barrier = getattr(self, "barrier", None) if amount.quantity == "level" else None
        if barrier is not None and value.device.type != "cpu":
            barrier.check_level(value)
        wide = torch.float64 if a.dtype == torch.float64 else torch.float32
        converted = value.to(a.device, wide)
        if converted.dtype != value.dtype:
            Amount(amount.quantity, converted)  # may overflow in the narrower type
        return CheckedAmount(amount.quantity, converted)

    def _usable(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """``a`` in float32 or float64, and a mask of the rows that can be steered."""
        x = a if a.dtype in (torch.float32, torch.float64) else a.float()
        # Norms whose squares underflow or overflow count as zero or infinite.
        squared = x.square().sum(dim=-1)
        limits = torch.finfo(x.dtype)
        return x, torch.isfinite(squared) & (squared > limits.tiny / limits.eps)

    def check_amount(self, amount: Amount) -> None:
        """Raise `InvalidInputError` if the method has no such quantity."""
        if amount.quantity not in self.quantities:
            name = type(self).__name__
            raise InvalidInputError(
                f"{name} has no {amount.quantity!r} (got {amount}); it takes"
                f" {' or '.join(self.quantities)}."
            )

    @property
    @abstractmethod
    def default_amount(self) -> Amount:
        """The amount that `steer` uses when none is given."""

    @abstractmethod
    def _fit(self, contrast: Contrast) -> None:
        """Learn from checked activations."""

    @abstractmethod
    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        """Move finite, nonzero float32 or float64 activations `[..., d]`."""


@dataclass(eq=False)
class Prepared:
    """A fitted method with a checked amount, for many decoding steps (`Method.prepared`).

    `solve` makes no checks and never waits for the device.

    Attributes:
        method: the fitted method.
        amount: how much to steer.
        in_place: the compiled flow that overwrites activations; None where only `solve` is.
    """

    method: Method
    amount: CheckedAmount
    in_place: FlowInPlace | None = None

    def solve(self, a: Tensor) -> Solution:
        """As `Method.solve`; for `[n, 1, d]` equal to the bit to what ``in_place`` gives."""
        if self.in_place is not None and a.ndim == 3 and a.shape[1] == 1:
            solution = self.in_place.solve(a)
            if solution is not None:
                return solution
        return self.method.solve(a, self.amount)
