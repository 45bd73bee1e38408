"""Base class of methods around another method."""

from typing import Any

from typing_extensions import Self

from odesteer.barriers import Contrast
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method


class Wrapper(Method):
    """A method around another: its quantities, default amount and barrier are the inner one's.

    A subclass has the parameter ``method`` and implements `_solve` on top of
    ``self.method.solve_usable(a, amount)``. After `fit`, ``method`` is the fitted one.
    """

    method = FittedPart[Method]()
    method_: Method

    def __init__(self, method: Method) -> None:
        self.method = method

    @classmethod
    def around(cls, method: Method, **parameters: Any) -> Self:
        """The wrapper around a method that is fitted already, and is not fitted again.

        Raises `NotFittedError` if it is not.
        """
        wrapper = cls(method, **parameters)
        wrapper._check_inner()
        method.check_fitted()
        wrapper.width_, wrapper.mean_norm_ = method.width_, method.mean_norm_
        wrapper.strength_unit_ = method.strength_unit
        return wrapper

    # A property, since they depend on the method inside.
    @property
    def quantities(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.method.quantities

    @property
    def default_amount(self) -> Amount:
        return self.method.default_amount

    @property
    def barrier(self) -> Any:
        """The barrier of the method inside; AttributeError where that has none."""
        barrier = self.method.barrier  # type: ignore[attr-defined]
        self.check_fitted()
        return barrier

    def _fit(self, contrast: Contrast) -> None:
        self._check_inner()
        self.method_ = self.method.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )

    def _check_inner(self) -> None:
        if not isinstance(self.method, Method):
            name = type(self).__name__
            raise InvalidInputError(
                f"{name} wraps a method, as in {name}(CAA()), not {self.method!r:.80}."
            )
