"""ControlVector: one constant displacement for each layer, from a steerer and back to one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount
from odesteer.methods.given_direction import checked_direction
from odesteer.untrusted import is_integer

DEFAULT_POSITION = "all"


@dataclass(frozen=True)
class ControlVector:
    """One vector for each of some layers, added to the outputs of these layers.

    Attributes:
        directions: the vectors `[d]`, float32, by layer from zero, in order.
        positions: the tokens that are steered at each layer; where it says nothing, all, as
            other programs do.
        model_hint: the architecture that it was made for ("llama"), if known.

    Raises `InvalidInputError` for layers that are no layers, for vectors of different widths, and
    for those that hold NaN, infinities, or nothing but zeros.
    """

    directions: Mapping[int, Tensor]
    positions: Mapping[int, str] = field(default_factory=dict)
    model_hint: str | None = None

    def __post_init__(self) -> None:
        if not self.directions:
            raise InvalidInputError("a control vector holds at least one direction.")
        checked = {}
        for layer in self.directions:
            if not is_integer(layer, 0):
                raise InvalidInputError(f"layers are integers from zero, not {layer!r}.")
        for layer in sorted(self.directions):
            try:
                checked[layer] = checked_direction(self.directions[layer]).float()
            except InvalidInputError as error:
                raise InvalidInputError(f"layer {layer}: {error}") from None
        widths = sorted({len(direction) for direction in checked.values()})
        if len(widths) > 1:
            raise InvalidInputError(
                f"the directions have the widths {', '.join(map(str, widths))}; all layers of a"
                " model have one."
            )
        for layer, position in self.positions.items():
            Site(layer, position)  # raises for words that are no position
        object.__setattr__(self, "directions", checked)

    @classmethod
    def of(
        cls,
        steerer: Steerer | SteererSet,
        amount: Amount | None = None,
        model_hint: str | None = None,
    ) -> "ControlVector":
        """The displacements of a steerer at an amount, its default one without.

        Raises `InvalidInputError` for a steerer that is more than one constant vector for each
        layer: whose displacement depends on the activation, with a gate, of heads, or without a
        site.
        """
        directions, positions = {}, {}
        for member in steerer.members:
            site = plain_site(member)
            displacement = member.method.constant_displacement(amount)
            if displacement is None:
                name = type(member.method).__name__
                at = amount or member.method.default_amount
                raise InvalidInputError(
                    f"{name} at {at} moves each activation differently, so it is no constant"
                    " vector. Export its mean displacement instead, by name, or a T or a strength"
                    " of CAA, RepE or ITI."
                )
            if site.layer in directions:
                raise InvalidInputError(
                    f"two steerers act at layer {site.layer}, on different tokens; a control"
                    " vector has one vector for each layer. Export them one by one."
                )
            if not bool(displacement.any()):
                raise InvalidInputError(
                    f"the displacement at layer {site.layer} is zero at"
                    f" {amount or member.method.default_amount}; choose another amount."
                )
            directions[site.layer], positions[site.layer] = displacement, site.position
        return cls(directions, positions, model_hint)

    @property
    def width(self) -> int:
        """d, the length of each vector."""
        return len(next(iter(self.directions.values())))

    def position(self, layer: int) -> str:
        """The tokens that are steered at a layer."""
        return self.positions.get(layer, DEFAULT_POSITION)

    def to_steerer(self, position: str | None = None) -> Steerer | SteererSet:
        """A `CAA` for each layer, with T = 1 the vector as it is; a set for several layers.

        ``position`` says which tokens are steered, at all layers.
        """
        with torch.inference_mode(False):
            steerers = [
                Steerer(
                    CAA.from_direction(direction),
                    Site(layer, position or self.position(layer)),
                )
                for layer, direction in self.directions.items()
            ]
        return steerers[0] if len(steerers) == 1 else SteererSet(steerers)


def plain_site(steerer: Steerer) -> Site:
    """The site of a steerer of the residual stream without a gate; else `InvalidInputError`."""
    if steerer.site is None:
        raise InvalidInputError(
            "the steerer is not bound to a layer; build it with a site, as in"
            " Steerer(method, Site(layer=13))."
        )
    if steerer.site.part != "residual":
        what = f"on the attention heads of layer {steerer.site.layer}"
        if steerer.site.part == "final":
            what = "behind the last norm"
        raise InvalidInputError(
            f"the steerer acts {what}; a control vector acts on the output of the layer. Fit one on"
            " the residual stream."
        )
    if steerer.gate is not None:
        raise InvalidInputError(
            "the steerer has a gate, a condition on the prompt; a control vector has none. Export"
            " the steerer without it."
        )
    return steerer.site
