"""A steerer or a set of them together with how much it steers."""

from dataclasses import dataclass, replace
from typing import Any

from odesteer.artifact.site import Site
from odesteer.artifact.steerer import Steerer
from odesteer.artifact.steerer_set import SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount


@dataclass(frozen=True)
class Applied:
    """A steerer (or a set), how much it steers, and its name.

    Attributes:
        steerer: what is applied.
        amount: how much; None for the default of each method.
        name: what it is called in output; None where nothing calls it.

    Raises `InvalidInputError` for an amount that a method does not have.
    """

    steerer: Steerer | SteererSet
    amount: Amount | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.amount is not None:
            self.steerer.check_amount(self.amount)

    @property
    def arguments(self) -> dict[str, Any]:
        """The amount as the keyword argument of the same name, ``{"level": 1.5}``; or none."""
        return {} if self.amount is None else {self.amount.quantity: self.amount.value}

    def check_levels(self) -> None:
        """Raise `InvalidInputError` for a level that has no meaning for a barrier."""
        for steerer in self.steerer.members:
            amount = self.amount or steerer.method.default_amount
            barrier = getattr(steerer.method, "barrier", None)
            if amount.quantity == "level" and barrier is not None:
                barrier.threshold(amount.value)

    @property
    def members(self) -> tuple["Applied", ...]:
        """Each steerer on its own, with its amount: that of its method where none is given."""
        return tuple(
            replace(self, steerer=member, amount=self.amount or member.method.default_amount)
            for member in self.steerer.members
        )

    @property
    def sites(self) -> tuple[Site | None, ...]:
        """The site of each steerer; None for one that is not bound to a layer."""
        return tuple(member.site for member in self.steerer.members)

    def without_effect(self) -> "Applied":
        """The same steerer with an amount that moves nothing, so that it only observes.

        Raises `InvalidInputError` if its methods have no such amount.
        """
        for quantity in ("T", "strength", "interpolation"):
            if quantity in self.steerer.quantities:
                return replace(self, amount=Amount(quantity, 0.0))
        raise InvalidInputError("its method has no amount that moves nothing.")

    def __str__(self) -> str:
        name = self.name or type(self.steerer).__name__
        return name if self.amount is None else f"{name} at {self.amount}"
