"""A fitted method with the place it acts at and its origin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.artifact.base import Artifact
from odesteer.artifact.checking import check_method, try_out
from odesteer.artifact.format import Content, Part
from odesteer.artifact.gate import Gate
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.site import Site
from odesteer.artifact.state import decode, encode
from odesteer.errors import ArtifactError, InvalidInputError, ModelError, OdesteerError
from odesteer.flows import Solution
from odesteer.methods import Amount, Method
from odesteer.untrusted import is_integer
from odesteer.version import __version__


@dataclass(frozen=True)
class Steerer(Artifact):
    """A fitted method, where it acts (None: not bound to a model) and what it was fitted on.

    With a ``gate`` it acts only on rows whose prompt meets a condition, see `when`.

    Raises `NotFittedError` for a method that is not fitted, and `InvalidInputError` if its width
    is not that of the model in the provenance, or its site not one of that model's layers.
    """

    method: Method
    site: Site | None = None
    provenance: Provenance = field(default_factory=Provenance)
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise InvalidInputError(f"a steerer holds a fitted Method, not {self.method!r:.80}.")
        if self.gate is not None and not isinstance(self.gate, Gate):
            raise InvalidInputError(f"gate must be a Gate or None, not {self.gate!r:.80}.")
        self.method.check_fitted()
        width, n_layers = self.provenance.model_width, self.provenance.n_layers
        of_heads = self.site is not None and self.site.part == "heads"
        if width is not None and width != self.width and not of_heads:
            raise InvalidInputError(
                f"the method was fitted on width {self.width}, but the model in its provenance has"
                f" width {width}."
            )
        if self.site is not None and n_layers is not None and self.site.layer >= n_layers:
            raise InvalidInputError(
                f"the site is layer {self.site.layer}, but the model in the provenance has"
                f" {n_layers} layers, counted from 0."
            )

    @property
    def width(self) -> int:
        """d, the width of the activations that the method steers."""
        return self.method.width_

    @property
    def members(self) -> tuple["Steerer", ...]:
        return (self,)

    @property
    def quantities(self) -> tuple[str, ...]:
        return self.method.quantities

    @property
    def barrier(self) -> Any:
        """The method's barrier; with methods that have none, no such attribute."""
        return self.method.barrier  # type: ignore[attr-defined]

    def steer(
        self,
        a: Tensor,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        interpolation: float | Tensor | None = None,
    ) -> Tensor:
        """As `Method.steer`: `[..., d] -> [..., d]`."""
        return self.method.steer(
            a, level=level, T=T, strength=strength, interpolation=interpolation
        )

    def solve(self, a: Tensor, amount: Amount | None = None) -> Solution:
        """As `Method.solve`: also tells what happened to each activation."""
        return self.method.solve(a, amount)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Steerer":
        """A copy whose floating-point tensors are on ``device`` in ``dtype``."""
        return replace(self, method=self.method.to(device, dtype))

    def check_width(self, width: int) -> None:
        """Raise `ModelError` unless activations of this width can be steered."""
        heads = self.site is not None and self.site.part == "heads"
        if width != self.width:
            fitted_on = self.provenance.model_id
            raise ModelError(
                f"this steerer was fitted on activations of width {self.width}"
                f"{f' (model {fitted_on!r})' if fitted_on else ''}, and the"
                f" {'heads of this layer have' if heads else 'model has'} width {width}; fit a"
                " steerer on this model."
            )

    def when(
        self,
        condition: "Steerer",
        *,
        below: float | None = None,
        above: float | None = None,
        pool: str = "last",
    ) -> "Steerer":
        """A copy that acts only on rows whose prompt meets a condition, see `Gate`.

        Only a model tells what the prompt is: `steer` and `solve` act on what they are given.
        """
        return replace(self, gate=Gate(condition, below, above, pool))

    def content(self) -> Content:
        if self.gate is not None:
            return content_of([self])
        spec, tensors = encode(self.method)
        return Content((self._part(spec),), tensors)

    def _part(self, spec: dict[str, Any], gate: dict[str, Any] | None = None) -> Part:
        """It as plain data, given those of its method and of its gate."""
        provenance = self.provenance
        if provenance.odesteer_version is None:
            provenance = replace(provenance, odesteer_version=__version__)
        return Part(spec, self.site, provenance, gate)

    @classmethod
    def restored(cls, content: Content) -> Self:
        if content.is_set:
            raise ArtifactError(
                f"it holds a set of {len(content.steerers)} steerers; open it with odesteer.load,"
                " or SteererSet.load."
            )
        return cls(**vars(steerers_in(content)[0]))


def content_of(steerers: Sequence[Steerer], is_set: bool = False) -> Content:
    """Several steerers, or one with a gate, as plain data. Gates may share a condition."""
    tensors: dict[str, Tensor] = {}
    parts, conditions = [], []
    places: dict[int, int] = {}

    def encoded(steerer: Steerer, prefix: str) -> dict[str, Any]:
        spec, more = encode(steerer.method, prefix)
        tensors.update(more)
        return spec

    for i, steerer in enumerate(steerers):
        gate = steerer.gate
        described = None
        if gate is not None:
            known = len(places)
            place = places.setdefault(id(gate.condition), known)
            if place == known:
                spec = encoded(gate.condition, f"conditions.{place}")
                conditions.append(gate.condition._part(spec))
            side = "above" if gate.below is None else "below"
            described = {"condition": place, side: gate.level, "pool": gate.pool}
        parts.append(steerer._part(encoded(steerer, f"steerers.{i}"), described))
    return Content(tuple(parts), tensors, tuple(conditions), is_set)


def steerers_in(content: Content) -> list[Steerer]:
    """The steerers that plain data describe. Raises `ArtifactError` for any other."""
    if content.format == 1:
        return [_restored(content.steerers[0], content.tensors)]
    left = dict(content.tensors)

    def own(prefix: str) -> dict[str, Tensor]:
        return {name: left.pop(name) for name in list(left) if name.startswith(f"{prefix}.")}

    conditions = [
        _restored(part, own(f"conditions.{i}")) for i, part in enumerate(content.conditions)
    ]
    steerers = [
        _restored(part, own(f"steerers.{i}"), _gate(part.gate, conditions))
        for i, part in enumerate(content.steerers)
    ]
    if left:
        raise ArtifactError(f"it holds tensors that belong to nothing: {', '.join([*left][:5])}.")
    used = {id(steerer.gate.condition) for steerer in steerers if steerer.gate}
    if len(used) < len(conditions):
        raise ArtifactError("it holds conditions that belong to no gate.")
    return steerers


def _restored(part: Part, tensors: Mapping[str, Tensor], gate: Gate | None = None) -> Steerer:
    method = check_method(decode(part.method, tensors, "method"), tensors)
    try:
        steerer = Steerer(method, part.site, part.provenance, gate)
    except OdesteerError as error:
        raise ArtifactError(str(error)) from None
    try_out(method)
    return steerer


def _gate(described: dict[str, Any] | None, conditions: Sequence[Steerer]) -> Gate | None:
    if described is None:
        return None
    named = dict(described)
    place = named.pop("condition", None)
    if not is_integer(place, 0) or place >= len(conditions):
        raise ArtifactError(f"a gate has the condition {place!r:.40} of {len(conditions)}.")
    try:
        return Gate(conditions[place], **named)
    except (TypeError, InvalidInputError) as error:
        raise ArtifactError(f"a gate makes no sense: {error}") from None
