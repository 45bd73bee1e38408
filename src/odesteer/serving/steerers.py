"""The steerers that a server has, by name."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from odesteer.artifact import Provenance, Site, Steerer, SteererSet, check_name, parse_requests
from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.methods import Amount
from odesteer.models import SteeredModel

_STILL = ("T", "strength", "interpolation")
"""Quantities of which 0 moves nothing."""


@dataclass(frozen=True)
class SteeringSpec:
    """A steerer by name, and how a request uses it.

    Attributes:
        name: of a registered steerer.
        amount: how much; None for the default of its method.
        observe: move nothing, and only measure its barrier along the text.
    """

    name: str
    amount: Amount | None = None
    observe: bool = False


@dataclass(frozen=True)
class SteererMember:
    """One steerer of a set, or the only one, as it acts on rows of a batch.

    Attributes:
        gated: the steerer with its gate, for the prompt.
        open: without it, for generated tokens of rows that the gate has let through.
    """

    gated: Steerer
    open: Steerer

    @classmethod
    def of(cls, steerer: Steerer) -> "SteererMember":
        # Where it comes from was looked at when it was put on the shelf.
        acting = replace(steerer, provenance=Provenance())
        return cls(acting, replace(acting, gate=None) if acting.gate else acting)

    @property
    def site(self) -> Site:
        assert self.open.site is not None  # checked when it was put on the shelf
        return self.open.site

    @property
    def has_barrier(self) -> bool:
        return getattr(self.open.method, "barrier", None) is not None

    @property
    def observing(self) -> "SteererMember":
        """Acts on rows whatever the gate says."""
        return SteererMember(self.open, self.open)

    @property
    def still(self) -> Amount | None:
        """An amount that moves nothing; None if the method has none."""
        found = next((q for q in _STILL if q in self.open.method.quantities), None)
        return None if found is None else Amount(found, 0.0)


@dataclass(frozen=True)
class RegisteredSteerer:
    """A named steerer, or set of them.

    Attributes:
        name: what requests call it.
        steerer: as it was loaded.
        uploaded: whether it came over the network.
    """

    name: str
    steerer: Steerer | SteererSet
    uploaded: bool = False

    @cached_property
    def digest(self) -> str:
        return self.steerer.digest()

    @cached_property
    def card(self) -> str:
        return self.steerer.card()

    @cached_property
    def parts(self) -> tuple[SteererMember, ...]:
        return tuple(map(SteererMember.of, self.steerer.members))

    def check(self, amount: Amount | None) -> None:
        """Raise `InvalidInputError` for an amount that it cannot be steered by."""
        if amount is not None:
            self.steerer.check_amount(amount)
        for steerer in self.steerer.members:
            own = steerer.method.default_amount if amount is None else amount
            barrier = getattr(steerer.method, "barrier", None)
            if own.quantity == "level" and barrier is not None:
                barrier.threshold(own.value)

    def check_observable(self) -> None:
        """Raise `InvalidInputError` if there is nothing to observe without moving."""
        for part in self.parts:
            if not part.has_barrier or part.still is None:
                method = type(part.open.method).__name__
                raise InvalidInputError(
                    f"{self.name!r} cannot be observed: its method {method} has no"
                    f" {'barrier' if not part.has_barrier else 'amount that moves nothing'}."
                )


class SteererRegistry(Mapping[str, RegisteredSteerer]):
    """Steerers that fit one model, by name. Reading it is safe from any thread.

    Raises what `SteeredModel.steering` raises for a steerer that does not fit the model.
    """

    def __init__(self, lm: SteeredModel) -> None:
        self._lm = lm
        self._entries: dict[str, RegisteredSteerer] = {}
        self._lock = threading.Lock()

    def add(
        self, name: str, steerer: Steerer | SteererSet, *, uploaded: bool = False
    ) -> RegisteredSteerer:
        """Put a steerer on the shelf. Raises `InvalidInputError` for a name that cannot be used.

        An uploaded one takes the place of an uploaded one of the same name.
        """
        check_name(name)
        # Whether it fits the model; a level without meaning is told to requests that ask for one.
        other = next((name for name in steerer.quantities if name != "level"), None)
        self._lm.steering(steerer, **({} if other is None else {other: 0.0}))  # type: ignore[arg-type]
        entry = RegisteredSteerer(name, steerer, uploaded)
        with self._lock:
            known = self._entries.get(name)
            if known is not None and not (uploaded and known.uploaded):
                raise InvalidInputError(
                    f"there is a steerer {name!r} already; choose another name."
                )
            self._entries = {**self._entries, name: entry}
        return entry

    def remove(self, name: str) -> None:
        """Take one away; texts that it steers go on."""
        with self._lock:
            self._entries = {known: e for known, e in self._entries.items() if known != name}

    def __getitem__(self, name: str) -> RegisteredSteerer:
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(self._entries) or "none"
            raise UnknownNameError(
                f"there is no steerer {name!r:.80}; this server has {known}."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def steering_in(name: str, model_id: str, steerers: SteererRegistry) -> list[SteeringSpec]:
    """The steerers that follow the model's own name, each with its amount if it has one.

    Raises `UnknownNameError` for another model or steerer, and `InvalidInputError` for what is no
    steering.
    """
    if name == model_id:
        return []
    if not name.startswith(f"{model_id}+"):
        raise UnknownNameError(
            f"there is no model {name!r:.200}; this server has {model_id!r}, and steered"
            f" {model_id}+NAME@AMOUNT with {', '.join(steerers) or 'no steerers'}."
        )
    asked = parse_requests(name[len(model_id) + 1 :])
    return [SteeringSpec(one.name, one.amount_of(steerers[one.name].steerer)) for one in asked]
