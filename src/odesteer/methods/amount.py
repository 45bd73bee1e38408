"""Amounts: how much to steer, as level, T, strength or interpolation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError

QUANTITIES = {
    "level": "of the barrier: 0 the decision boundary, 1 the 90 % quantile of positives",
    "T": "arc length in activation units",
    "strength": "T in units of the mean activation norm",
    "interpolation": "fraction of a transport map: 0 nothing, 1 the whole map",
}


@dataclass(frozen=True)
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
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidInputError(f"{self.quantity} must be a number or a tensor, not {value!r}.")
        else:
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

    def __str__(self) -> str:
        return f"{self.quantity}={self.value}"


class CheckedAmount(Amount):
    """An amount that a method has checked, on the device and in the type of the activations.

    It is not validated again, which on a GPU would wait for the device.
    """

    def __post_init__(self) -> None:
        pass


def check_max_strength(max_strength: float) -> None:
    """Raise `InvalidInputError` unless the cap of flows to a level is positive and finite."""
    if not 0 < max_strength < math.inf:
        raise InvalidInputError(f"max_strength must be a positive number, not {max_strength}.")
