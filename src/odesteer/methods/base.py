"""Base class of steering methods: fit, steer, prepare for decoding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Barrier, Contrast, FitArguments, FrozenBarrier, Groups, check_contrast
from odesteer.errors import InvalidInputError
from odesteer.estimator import Estimator
from odesteer.flows import FlowInPlace, Solution
from odesteer.methods.amount import (
    Amount,
    CheckedAmount,
    quantity_words,
    with_quantity_words,
)


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
        may_be_given: whether it can be made of given vectors, without examples and so with an
            unknown ``mean_norm_``.
        cost: of steering one token, in operations.
        reference: the paper.
        needs_model: whether it is trained through the model, by `SteeredModel.fit` alone.

    Most methods have the parameter ``amount``, how much to steer by default: an `Amount`, or a
    number in the natural quantity. Constructors and `with_params` also take it by the name of the
    quantity, as in ``ODESteer(T=5)``.

    Learned: ``width_`` (d); ``mean_norm_``, the mean Euclidean norm of the activations it was
    fitted to, NaN for a method that was given, and ``strength_unit_``, in which `strength` counts,
    see `class_deviation`; both in activation units.
    """

    family: ClassVar[str] = "method"
    quantities: ClassVar[tuple[str, ...]]
    dynamics: ClassVar[str] = ""
    barrier_summary: ClassVar[str] = ""
    solver_summary: ClassVar[str] = "closed form"
    keeps_norm: ClassVar[bool] = False
    may_be_given: ClassVar[bool] = False
    cost: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    needs_model: ClassVar[bool] = False

    # Quantities under whose names earlier versions stored the default amount.
    amount_words: ClassVar[tuple[str, ...]] = ()
    # Parameters that files of earlier versions lack, with the value that keeps their meaning.
    added_parameters: ClassVar[Mapping[str, Any]] = {}

    amount: Amount | float | None

    width_: int
    mean_norm_: float
    strength_unit_: float

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and "amount" in cls.parameter_names():
            natural = cls.quantities[0]
            cls.__init__ = with_quantity_words(cls.__init__, natural)  # type: ignore[method-assign]

    def fit(self, positive: Tensor, negative: Tensor, groups: Groups | None = None) -> Self:
        """Fit to activations of desirable and undesirable examples, `[n₊, d]` and `[n₋, d]`.

        ``groups`` is a pair of label sequences (n₊ and n₋ long); examples that share a label are
        never split between folds. Raises `InvalidInputError` for sets that cannot be fitted to.
        """
        contrast = check_contrast(positive, negative, groups)
        if "amount" in self.parameter_names():
            self.check_amount(self.default_amount)
        self.forget()
        try:
            self.width_ = contrast.width
            norms = torch.cat([contrast.positive.norm(dim=1), contrast.negative.norm(dim=1)])
            self.mean_norm_ = float(norms.double().mean())
            self.strength_unit_ = class_deviation(contrast)
            self._fit(contrast)
        except BaseException:
            self.forget()  # never half fitted
            raise
        return self

    @property
    def fits_jointly(self) -> bool:
        """Whether copies at several layers are fitted together, by `fit_layers`."""
        own = self.get_params(deep=False).get("barrier")
        return isinstance(own, Barrier) and own.fits_jointly

    def fit_layers(self, sides: Sequence[FitArguments]) -> list[Self]:
        """Fitted copies, one for each layer, whose examples are the same.

        Where the method `fits_jointly`, what the layers share is learned from all of them. Raises
        as `fit` does.
        """
        if not self.fits_jointly:
            return [self.clone().fit(*side) for side in sides]
        template = self.get_params(deep=False)["barrier"]
        copies = []
        for barrier, side in zip(template.fit_layers(sides), sides, strict=True):
            copy = self.with_params(barrier=FrozenBarrier(barrier)).fit(*side)
            copies.append(copy.set_params(barrier=template.clone()))
            vars(copy)["barrier_"] = barrier
        return copies

    def steer(
        self,
        a: Tensor,
        amount: Amount | float | Tensor | None = None,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        interpolation: float | Tensor | None = None,
    ) -> Tensor:
        """The steered activations, `[..., d] -> [..., d]`, in the type of ``a``.

        At most one of ``amount`` (an `Amount`, or numbers in the natural quantity) and the four
        quantities is given; without any it is the method's own default. A tensor gives one value
        for each activation and must broadcast against ``a.shape[:-1]``. Activations that are zero
        or not finite come back unchanged. ``a`` itself is not modified.
        """
        named = Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)
        if amount is not None and named is not None:
            raise InvalidInputError(f"give amount={amount} or {named}, not both.")
        if amount is not None:
            named = Amount.given(amount, self.quantities[0])
        return self.solve(a, named).state

    def solve(self, a: Tensor, amount: Amount | None = None) -> Solution:
        """As `steer`, with arc length and status of each activation (`Solution`)."""
        amount = self._checked(a, amount)
        x, usable = self._usable(a)
        # Unusable rows are replaced by ones and put back at the end, which avoids a
        # data-dependent branch.
        solution = self._solve(torch.where(usable[..., None], x, 1.0), amount)
        return solution.keep_unusable(a, usable)

    def constant_displacement(self, amount: Amount | None = None) -> Tensor | None:
        """The displacement `[d]` that all activations share at an amount; None if they do not.

        The default amount without one. Methods whose displacement is the same everywhere override
        this, and can then be exported as plain vectors.
        """
        return None

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
    def default_amount(self) -> Amount:
        """The amount that `steer` uses when none is given."""
        amount = getattr(self, "amount", None)
        if amount is None:
            name, first = type(self).__name__, self.quantities[0]
            raise InvalidInputError(
                f"{name} has no default amount; give one, as in {name}(amount=1.0), a {first}."
            )
        return Amount.given(amount, self.quantities[0])

    @property
    def strength_unit(self) -> float:
        """The length in activation units that `strength` 1 stands for.

        Files of versions that counted in mean norms have no ``strength_unit_``; there it is
        the mean norm.
        """
        self.check_fitted()
        unit: float = vars(self).get("strength_unit_", self.mean_norm_)
        return unit

    def with_params(self, **changes: Any) -> Self:
        if "amount" in self.parameter_names():
            changes |= quantity_words(self.parameter_names(), self.quantities[0], changes)
        return super().with_params(**changes)

    @classmethod
    def read_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Constructor arguments from those in a file, which may be of an earlier version."""
        added = cls.added_parameters.items()
        own = {name: value for name, value in added if name in cls.parameter_names()}
        params = {**own, **params}
        if isinstance(params.get("amount"), tuple):
            params["amount"] = Amount(*params["amount"]).short(cls.quantities[0])
        if "amount" in cls.parameter_names():
            params |= quantity_words(cls.parameter_names(), cls.quantities[0], params)
        return params

    def written_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Constructor arguments as files have them, in the form of the first version if possible.

        The digest of an artifact that is loaded and saved again stays the same.
        """
        params = {
            name: value
            for name, value in params.items()
            if name not in self.added_parameters or value != self.added_parameters[name]
        }
        if params.get("amount") is not None:
            amount = Amount.given(params.pop("amount"), self.quantities[0])
            if amount.quantity in self.amount_words:
                params |= {**dict.fromkeys(self.amount_words), amount.quantity: amount.value}
            else:
                params["amount"] = (amount.quantity, amount.value)
        return params

    @abstractmethod
    def _fit(self, contrast: Contrast) -> None:
        """Learn from checked activations."""

    @abstractmethod
    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        """Move finite, nonzero float32 or float64 activations `[..., d]`."""


def class_deviation(contrast: Contrast) -> float:
    """The unit of `strength`: the standard deviation along the difference of the class means.

    Of examples of both classes, which count alike: √(σ² + δ²/4) with δ the distance of the means
    and σ the deviation within classes along their difference. At most 3δ, so that steering between
    classes that overlap does not go far beyond them. Where the means are equal, the median over
    coordinates of the deviation within classes.

    Unlike the mean norm it does not grow with coordinates that are large for both classes alike.
    """
    positive, negative = contrast.positive.double(), contrast.negative.double()
    means = positive.mean(dim=0), negative.mean(dim=0)
    residuals = positive - means[0], negative - means[1]
    difference = means[0] - means[1]
    distance = float(difference.norm())
    rounding = 16 * torch.finfo(contrast.positive.dtype).eps * float(contrast.examples.abs().max())
    if not distance > rounding:
        return float(torch.cat(residuals).square().mean(dim=0).sqrt().median())
    within = [float((a @ (difference / distance)).square().mean()) for a in residuals]
    return min(math.sqrt(sum(within) / 2 + distance**2 / 4), 3 * distance)


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
