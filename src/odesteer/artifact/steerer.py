"""Steerer: a fitted method, its site, its provenance and a gate (a condition on the prompt)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.artifact.base import Artifact
from odesteer.artifact.format import Content, SteererSpec
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.serialization import decode, encode
from odesteer.artifact.site import Site
from odesteer.artifact.validation import check_method, try_out
from odesteer.errors import ArtifactError, InvalidInputError, ModelError, OdesteerError
from odesteer.flows import Solution
from odesteer.methods import Amount, Method
from odesteer.untrusted import is_integer, is_number
from odesteer.version import __version__

POOLS = ("last", "mean")


@dataclass(frozen=True)
class Gate:
    """Steer a row only if its prompt meets a condition (Lee et al., ICLR 2025, arXiv 2409.05907).

    Whether a row is steered is decided once, where its prompt ends, and held while it generates:
    the barrier h of ``condition`` at the prompt's activation, at the condition's own layer, is
    compared with a level of that barrier. Exactly one of ``below`` (steer where h is under that
    level) and ``above`` (steer where it is over it) is given; 0 is the decision boundary.
    ``pool`` says which activation of the prompt: that of its ``last`` token, or the ``mean`` over
    its tokens, as in the paper; fit the condition on the same.

    With a condition at the steered layer or before it, tokens of the prompt are gated too. A
    condition at a later layer is known only after the prompt's forward pass: then no token of
    the prompt is moved, the last one included, and steering begins with the first generated
    token.

    Raises `InvalidInputError` for a condition without a barrier or a site.
    """

    condition: "Steerer"
    below: float | None = None
    above: float | None = None
    pool: str = "last"

    def __post_init__(self) -> None:
        if not isinstance(self.condition, Steerer):
            raise InvalidInputError(
                f"a condition is a Steerer whose barrier decides, not {self.condition!r:.80}."
            )
        method = type(self.condition.method).__name__
        if getattr(self.condition.method, "barrier", None) is None:
            raise InvalidInputError(
                f"{method} has no barrier, so it cannot be a condition; fit one that has, such as"
                " ODESteer or CAA."
            )
        if self.condition.site is None:
            raise InvalidInputError(
                "this condition is not bound to a layer; build it with a site, as in"
                " Steerer(method, Site(layer=13))."
            )
        if self.condition.gate is not None:
            raise InvalidInputError("a condition cannot have a condition itself.")
        if self.pool not in POOLS:
            raise InvalidInputError(f"pool must be one of {', '.join(POOLS)}, not {self.pool!r}.")
        if (self.below is None) == (self.above is None):
            raise InvalidInputError(
                f"give one of below and above, not below={self.below} and above={self.above}."
            )
        if not is_number(self.level):
            raise InvalidInputError(f"the level of a gate must be a number, not {self.level!r}.")

    @property
    def level(self) -> float:
        """The level that h is compared with."""
        return self.below if self.below is not None else self.above  # type: ignore[return-value]

    @property
    def site(self) -> Site:
        """The site at which the condition is evaluated."""
        return self.condition.site  # type: ignore[return-value]

    @property
    def threshold(self) -> float:
        """The value of h that the level stands for. Raises `InvalidInputError` where none does."""
        return float(self.condition.barrier.threshold(self.level))

    def __str__(self) -> str:
        side = "below" if self.below is not None else "above"
        tokens = "the last token" if self.pool == "last" else "the mean"
        return (
            f"only where {type(self.condition.method).__name__} at layer"
            f" {self.site.layer}{self.site.part_words}"
            f" finds {tokens} of the prompt {side} level {self.level:g}"
        )


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
        if self.site is None or n_layers is None:
            return
        if self.site.part == "final" and self.site.layer != n_layers - 1:
            raise InvalidInputError(
                f"part='final' is behind the last layer, which is {n_layers - 1} in the model of"
                f" the provenance, not {self.site.layer}."
            )
        if self.site.layer >= n_layers:
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
        """The method's barrier. Raises `AttributeError` for methods without one."""
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
        """As `Method.solve`: the moved activations and what happened to each."""
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
        return Content((self._spec(spec),), tensors)

    def _spec(self, spec: dict[str, Any], gate: dict[str, Any] | None = None) -> SteererSpec:
        """Plain data of this steerer, given the specs of its method and of its gate."""
        provenance = self.provenance
        if provenance.odesteer_version is None:
            provenance = replace(provenance, odesteer_version=__version__)
        return SteererSpec(spec, self.site, provenance, gate)

    @classmethod
    def restored(cls, content: Content) -> Self:
        if content.is_set:
            raise ArtifactError(
                f"it holds a set of {len(content.steerers)} steerers; open it with odesteer.load,"
                " or SteererSet.load."
            )
        return cls(**vars(steerers_in(content)[0]))


def content_of(steerers: Sequence[Steerer], is_set: bool = False) -> Content:
    """Plain data of several steerers, or of one with a gate. Gates may share a condition."""
    tensors: dict[str, Tensor] = {}
    specs, conditions = [], []
    indices: dict[int, int] = {}

    def encoded(steerer: Steerer, prefix: str) -> dict[str, Any]:
        spec, more = encode(steerer.method, prefix)
        tensors.update(more)
        return spec

    for i, steerer in enumerate(steerers):
        gate = steerer.gate
        described = None
        if gate is not None:
            known = len(indices)
            index = indices.setdefault(id(gate.condition), known)
            if index == known:
                spec = encoded(gate.condition, f"conditions.{index}")
                conditions.append(gate.condition._spec(spec))
            side = "above" if gate.below is None else "below"
            described = {"condition": index, side: gate.level, "pool": gate.pool}
        specs.append(steerer._spec(encoded(steerer, f"steerers.{i}"), described))
    return Content(tuple(specs), tensors, tuple(conditions), is_set)


def steerers_in(content: Content) -> list[Steerer]:
    """The steerers that plain data describe. Raises `ArtifactError` for other data."""
    if content.format == 1:
        return [_decode(content.steerers[0], content.tensors)]
    left = dict(content.tensors)

    def own(prefix: str) -> dict[str, Tensor]:
        return {name: left.pop(name) for name in list(left) if name.startswith(f"{prefix}.")}

    conditions = [
        _decode(spec, own(f"conditions.{i}")) for i, spec in enumerate(content.conditions)
    ]
    steerers = [
        _decode(spec, own(f"steerers.{i}"), _decode_gate(spec.gate, conditions))
        for i, spec in enumerate(content.steerers)
    ]
    if left:
        raise ArtifactError(f"it holds tensors that belong to nothing: {', '.join([*left][:5])}.")
    used = {id(steerer.gate.condition) for steerer in steerers if steerer.gate}
    if len(used) < len(conditions):
        raise ArtifactError("it holds conditions that belong to no gate.")
    return steerers


def _decode(spec: SteererSpec, tensors: Mapping[str, Tensor], gate: Gate | None = None) -> Steerer:
    method = check_method(decode(spec.method, tensors, "method"), tensors)
    try:
        steerer = Steerer(method, spec.site, spec.provenance, gate)
    except OdesteerError as error:
        raise ArtifactError(str(error)) from None
    try_out(method)
    return steerer


def _decode_gate(described: dict[str, Any] | None, conditions: Sequence[Steerer]) -> Gate | None:
    if described is None:
        return None
    named = dict(described)
    index = named.pop("condition", None)
    if not is_integer(index, 0) or index >= len(conditions):
        raise ArtifactError(f"a gate has the condition {index!r:.40} of {len(conditions)}.")
    try:
        return Gate(conditions[index], **named)
    except (TypeError, InvalidInputError) as error:
        raise ArtifactError(f"a gate makes no sense: {error}") from None
