"""Amounts: how much to steer, as level, T, strength or interpolation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError

QUANTITIES = {
    "level": "of the barrier: 0 the decision boundary, 1 the 90 % quantile of positives",
    "T": "arc length in activation units",
    "strength": "length in standard deviations of the examples along the difference of class means",
    "interpolation": "fraction of a transport map: 0 nothing, 1 the whole map",
}


@dataclass(frozen=True, repr=False)
class Amount:
    """One quantity and its value: a number, or a tensor with one value for each row.

    Raises `InvalidInputError` for an unknown quantity and for values that are not finite numbers.
    """

    quantity: str
    value: float | Tensor

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise InvalidInputError(
                f"unknown quantity {self.quantity!r}; use one of {', '.join(QUANTITIES)}."
            )
        value = self.value
        if isinstance(value, Tensor):
            if value.dtype == torch.bool or value.is_complex():
                raise InvalidInputError(f"{self.quantity} must hold numbers, not {value.dtype}.")
            if not value.is_floating_point():
                object.__setattr__(self, "value", value.to(torch.get_default_dtype()))
            finite = bool(torch.isfinite(value).all())
        elif isinstance(value, bool) or not isinstance(value, Real):
            raise InvalidInputError(f"{self.quantity} must be a number or a tensor, not {value!r}.")
        else:
            if not isinstance(value, (int, float)):
                object.__setattr__(self, "value", float(value))  # a scalar of numpy
            finite = math.isfinite(value)
        if not finite:
            raise InvalidInputError(f"{self.quantity} must be finite, not {value}.")

    @classmethod
    def of(
        cls,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        interpolation: float | Tensor | None = None,
    ) -> "Amount | None":
        """The one quantity that is given, or None. Raises `InvalidInputError` for two."""
        given = {
            name: value
            for name, value in zip(QUANTITIES, (level, T, strength, interpolation), strict=True)
            if value is not None
        }
        if len(given) > 1:
            raise InvalidInputError(
                "give exactly one of level, T, strength and interpolation, not"
                f" {' and '.join(f'{name}={value}' for name, value in given.items())}."
            )
        return next((cls(name, value) for name, value in given.items()), None)

    @classmethod
    def parse(cls, text: str, natural: str) -> "Amount":
        """Read ``"1.5"`` (the method's ``natural`` quantity) or ``"T=5"``."""
        name, equals, number = text.strip().rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InvalidInputError(
                f"{text!r} is not an amount; write a number ({natural}) or one of"
                f" {', '.join(f'{quantity}=NUMBER' for quantity in QUANTITIES)}."
            ) from None
        return cls(name.strip() if equals else natural, value)

    @classmethod
    def given(cls, value: "Amount | float | Tensor", natural: str) -> "Amount":
        """``value`` itself, or the number or tensor as an amount of the ``natural`` quantity."""
        return value if isinstance(value, Amount) else cls(natural, value)

    def short(self, natural: str) -> "Amount | float | Tensor":
        """Itself, or its value where it is of the ``natural`` quantity; undone by `given`."""
        return self.value if self.quantity == natural else self

    def __str__(self) -> str:
        return f"{self.quantity}={self.value}"

    def __repr__(self) -> str:
        return f"Amount({self.quantity!r}, {self.value!r})"


class CheckedAmount(Amount):
    """An amount that a method has checked, on the device and in the type of the activations.

    It is not validated again, which on a GPU would wait for the device.
    """

    def __post_init__(self) -> None:
        pass


def check_max_strength(max_strength: float | None) -> None:
    """Raise `InvalidInputError` unless the cap is positive and finite, or None for no cap."""
    if max_strength is not None and not 0 < max_strength < math.inf:
        raise InvalidInputError(f"max_strength must be a positive number, not {max_strength}.")


def quantity_words(names: tuple[str, ...], natural: str, given: dict[str, Any]) -> dict[str, Any]:
    """Take the quantities that are no parameters out of ``given``, for the parameter ``amount``.

    ``ODESteer(T=5)`` is ``ODESteer(amount=Amount("T", 5))``, and ``ODESteer(level=2)`` is
    ``ODESteer(amount=2)``; quantities of None are left out, and None for all of them is
    ``amount=None``. ``names`` are the parameters and ``natural`` is the natural quantity. Raises
    `InvalidInputError` for two quantities, or for one beside an amount.
    """
    words = {name: given.pop(name) for name in QUANTITIES if name in given and name not in names}
    if not words:
        return {}
    amount = Amount.of(**words)
    if amount is not None and given.get("amount") is not None:
        raise InvalidInputError(f"give amount={given['amount']} or {amount}, not both.")
    given.pop("amount", None)
    return {"amount": None if amount is None else amount.short(natural)}


def with_quantity_words(init: Callable[..., None], natural: str) -> Callable[..., None]:
    """A constructor with the parameter ``amount`` that also takes the four quantities by name."""
    names = tuple(signature(init).parameters)[1:]

    @wraps(init)
    def init_with_words(self: Any, *args: Any, **kwargs: Any) -> None:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        words = quantity_words(names, natural, given)
        if words:
            args, kwargs = (), {**given, **words}
        init(self, *args, **kwargs)

    return init_with_words
