"""Registry of steerers, and steering in model names: ``bundled+truth@1.5+polite@T=5``."""

import inspect
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from odesteer.artifact import (
    Applied,
    Provenance,
    Site,
    Steerer,
    SteererSet,
    check_name,
    parse_requests,
)
from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError, ModelError, UnknownNameError
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.models.architecture.kv_cache import cache_argument


@dataclass(frozen=True)
class SteeringSpec:
    """A registered steerer, by name, and how a request uses it.

    Attributes:
        name: of a registered steerer.
        amount: how much; None for the default of its method.
        observe: move nothing, only measure the barrier along the text.
    """

    name: str
    amount: Amount | None = None
    observe: bool = False


@dataclass(frozen=True)
class SteererMember:
    """One steerer of a set, or a lone one, with its gate and without.

    Attributes:
        gated: the steerer with its gate, for passes over prompts.
        ungated: without the gate, for generated tokens of sequences whose gate is open.
    """

    gated: Steerer
    ungated: Steerer

    @classmethod
    def of(cls, steerer: Steerer) -> "SteererMember":
        # The registry has checked the provenance against the model; passes need not do it again.
        gated = replace(steerer, provenance=Provenance())
        return cls(gated, replace(gated, gate=None) if gated.gate else gated)

    @property
    def site(self) -> Site:
        assert self.ungated.site is not None  # checked when it was registered
        return self.ungated.site

    @property
    def has_barrier(self) -> bool:
        return getattr(self.ungated.method, "barrier", None) is not None

    @property
    def without_gate(self) -> "SteererMember":
        """The same steerer, acting whatever its gate decides."""
        return SteererMember(self.ungated, self.ungated)

    @property
    def zero_amount(self) -> Amount | None:
        """An amount that moves nothing; None if the method has none."""
        try:
            return Applied(self.ungated).without_effect().amount
        except InvalidInputError:
            return None


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
    def members(self) -> tuple[SteererMember, ...]:
        return tuple(map(SteererMember.of, self.steerer.members))

    def check(self, amount: Amount | None) -> None:
        """Raise `InvalidInputError` for an amount that it cannot be steered by."""
        Applied(self.steerer, amount).check_levels()

    def check_observable(self) -> None:
        """Raise `InvalidInputError` if it cannot be observed without moving anything."""
        for member in self.members:
            if not member.has_barrier or member.zero_amount is None:
                method = type(member.ungated.method).__name__
                raise InvalidInputError(
                    f"{self.name!r} cannot be observed: its method {method} has no"
                    f" {'barrier' if not member.has_barrier else 'amount that moves nothing'}."
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
        """Register a steerer. Raises `InvalidInputError` for a name that cannot be used.

        An uploaded one replaces an uploaded one of the same name.
        """
        check_name(name)
        # Checks that it fits the model. Levels without a meaning are refused per request.
        quantity = next((name for name in steerer.quantities if name != "level"), None)
        self._lm.steering(steerer, **({} if quantity is None else {quantity: 0.0}))  # type: ignore[arg-type]
        self._check_positions(steerer)
        entry = RegisteredSteerer(name, steerer, uploaded)
        with self._lock:
            existing = self._entries.get(name)
            if existing is not None and not (uploaded and existing.uploaded):
                raise InvalidInputError(
                    f"there is a steerer {name!r} already; choose another name."
                )
            self._entries = {**self._entries, name: entry}
        return entry

    def _check_positions(self, steerer: Steerer | SteererSet) -> None:
        """Raise `ModelError` for positions that need a cache with columns where there is none."""
        arguments = inspect.signature(self._lm.model.forward).parameters
        if cache_argument(arguments) == "past_key_values":
            return
        for member in steerer.members:
            if member.site is not None and not parse_position(member.site.position).is_plain:
                raise ModelError(
                    f"position {member.site.position!r} needs a cache with a column for each token,"
                    " which this model does not have; use odesteer generate."
                )

    def remove(self, name: str) -> None:
        """Remove one; running texts that it steers go on."""
        with self._lock:
            self._entries = {key: value for key, value in self._entries.items() if key != name}

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


def parse_model_name(name: str, model_id: str, steerers: SteererRegistry) -> list[SteeringSpec]:
    """The steerers that follow the model's id in ``name``, each with its amount if it has one.

    Raises `UnknownNameError` for another model or steerer, `InvalidInputError` for a suffix that
    cannot be read.
    """
    if name == model_id:
        return []
    if not name.startswith(f"{model_id}+"):
        raise UnknownNameError(
            f"there is no model {name!r:.200}; this server has {model_id!r}, and steered"
            f" {model_id}+NAME@AMOUNT with {', '.join(steerers) or 'no steerers'}."
        )
    requests = parse_requests(name[len(model_id) + 1 :])
    return [
        SteeringSpec(request.name, request.amount_of(steerers[request.name].steerer))
        for request in requests
    ]
