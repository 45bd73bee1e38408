"""Sites in a model: the module and the hidden states where activations are read and changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from odesteer.artifact import PARTS, Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.heads import AttentionHeads
from odesteer.models.architecture.layers import DecoderLayers, unwrapped


@dataclass(frozen=True)
class SiteModule:
    """One site of a model: the module whose output or input are the activations.

    Attributes:
        layer: number of the decoder layer.
        part: `residual`, `heads` or `final`, see `odesteer.artifact.Site`.
        module: the module that returns the activations or, for `heads`, is given them.
        width: d, of these activations.
    """

    layer: int
    part: str
    module: nn.Module
    width: int

    @property
    def is_output(self) -> bool:
        """Whether the activations are what the module returns, not what it is given."""
        return self.part != "heads"

    @property
    def where(self) -> str:
        """The site in words, as in "activations after layer 3"."""
        if self.part == "residual":
            return f"after layer {self.layer}"
        if self.part == "final":
            return "behind the last norm"
        return f"of the heads of layer {self.layer}"


@dataclass
class ModelSites:
    """The sites of one model.

    Attributes:
        model: the model.
        layers: its decoder layers.
        width: d, of its residual stream.
        projection: name of the output projection of the attention inside a decoder layer, where
            the structure does not tell it.
    """

    model: nn.Module
    layers: DecoderLayers
    width: int
    projection: str | None = None
    _heads: AttentionHeads | None = field(default=None, repr=False)

    @cached_property
    def generating(self) -> list[Any]:
        """The modules that have a `generate` of their own, as transformers' models do."""
        return [
            module
            for module in unwrapped(self.model).modules()
            if callable(getattr(type(module), "generate", None))
        ]

    @property
    def embeddings(self) -> list[nn.Module]:
        """The modules that turn token ids into vectors, where the model names them."""
        model: Any = unwrapped(self.model)
        found = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
        return [found] if isinstance(found, nn.Module) else []

    @property
    def heads(self) -> AttentionHeads:
        """The attention heads; raises `ModelError` for a model that has none."""
        if self._heads is None:
            self._heads = AttentionHeads(self.model, self.layers, self.width, self.projection)
        return self._heads

    def at(self, layer: int, part: str = "residual") -> SiteModule:
        """The module at a layer; raises `ModelError` where there is none, `InvalidInputError` for
        an unknown part."""
        if part not in PARTS:
            raise InvalidInputError(f"part must be one of {', '.join(PARTS)}, not {part!r}.")
        module = self.layers.at(layer)
        if part == "residual":
            return SiteModule(layer, part, module, self.width)
        if part == "final":
            return SiteModule(layer, part, self._returning_final_states(layer), self.width)
        return SiteModule(layer, part, *self.heads.at(layer))

    def _returning_final_states(self, layer: int) -> nn.Module:
        """The module whose output the head is given: the one that runs the decoder layers."""
        last = len(self.layers) - 1
        if layer != last:
            raise InvalidInputError(
                f"part='final' is behind the last layer, which is {last} in this model, not"
                f" {layer}."
            )
        model: Any = unwrapped(self.model)
        owner = self.layers.owner
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if head is not None and any(module is head for module in owner.modules()):
            raise ModelError(
                f"{type(owner).__name__} runs its layers and its head in one module, so that the"
                " states between them cannot be reached; steer after its last layer,"
                " part='residual'."
            )
        return owner

    def of(self, site: Site) -> SiteModule:
        """The module at a site."""
        return self.at(site.layer, site.part)

    def check(self, steerer: Steerer) -> None:
        """Raise `ModelError` for a steerer without a site, or one that does not fit this model."""
        site = steerer.site
        if site is None:
            raise ModelError(
                "this steerer is not bound to a layer; build it with a site, as in"
                " Steerer(method, Site(layer=13))."
            )
        steerer.check_width(self.of(site).width)
        fitted_on = steerer.provenance.n_heads
        if site.part == "heads" and fitted_on not in (None, self.heads.n_heads):
            raise ModelError(
                f"this steerer was fitted on {fitted_on} attention heads in each layer, and the"
                f" model has {self.heads.n_heads}; fit a steerer on this model."
            )


def hidden_states(output: Any) -> Tensor:
    """The hidden states `[batch, columns, d]` in the output of a decoder layer, or of all.

    Raises `ModelError` where there are none.
    """
    several = isinstance(output, (tuple, list, Mapping)) and output
    states = _first(output) if several else output
    return _checked(states, "a decoder layer returned")


def replace_hidden_states(output: Any, states: Tensor) -> Any:
    """The output of a decoder layer, or of all, with other hidden states."""
    if isinstance(output, Tensor):
        return states
    if isinstance(output, Mapping):  # a ModelOutput of transformers
        return type(output)(**{**output, next(iter(output)): states})
    return (states, *output[1:])


def _first(output: Any) -> Any:
    return next(iter(output.values())) if isinstance(output, Mapping) else output[0]


def input_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The states `[batch, columns, d]` that a linear map is given, its first argument.

    Raises `ModelError` where there are none.
    """
    first = (*args, *kwargs.values())[:1]
    return _checked(first[0] if first else None, "an output projection was given")


def replace_input_states(
    args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other states in the first place."""
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, next(iter(kwargs)): states}


def raise_bypassed(place: SiteModule) -> None:
    """Raise the `ModelError` for a place that no activations came through."""
    if place.is_output:
        raise ModelError(f"layer {place.layer} did not run; this model skips layers.")
    raise ModelError(
        f"layer {place.layer} ran without calling the output projection of its attention"
        f" ({type(place.module).__name__}), so its heads cannot be looked at or moved; turn off"
        " fused kernels, or name another module with SteeredModel(model, tokenizer, heads=...)."
    )


def _checked(states: Any, what: str) -> Tensor:
    if not isinstance(states, Tensor) or states.ndim != 3:
        found = (
            f"a tensor of shape {tuple(states.shape)}"
            if isinstance(states, Tensor)
            else type(states).__name__
        )
        raise ModelError(
            f"{what} {found} where hidden states [batch, columns, width] were expected; this"
            " architecture is not supported."
        )
    return states
