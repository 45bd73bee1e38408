"""Finding the attention heads of decoder layers by their structure.

The outputs of all heads of a layer, side by side, are the input of its attention's output
projection. `choose_projection` finds that projection from names and widths alone; the other
functions read these off a layer. No class names and no table of architectures are involved.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from odesteer.errors import ModelError
from odesteer.models.architecture.layers import (
    DecoderLayers,
    argument_names,
    text_config,
    unwrapped,
)
from odesteer.untrusted import is_integer

# Last parts of the names of linear maps into an attention: queries, keys, values (each, several at
# once, or compressed) and gates.
_INPUTS = re.compile(
    r"(^|_)w?(q|k|v|g|qk|kv|qkv|query|queries|key|keys|value|values|gate)(_|\d|$)", re.IGNORECASE
)

# Linear maps of torch, of quantised layers and of adapters; and of GPT-2.
_WIDTHS = (("in_features", "out_features"), ("nx", "nf"))

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Projection:
    """A linear map inside an attention.

    Attributes:
        path: its dotted name, from the decoder layer.
        n_in: width of what it is given.
        n_out: width of what it returns.
    """

    path: str
    n_in: int
    n_out: int

    def __str__(self) -> str:
        return f"{self.path!r} ({self.n_in} to {self.n_out})"


class AttentionHeads:
    """The attention heads of a model.

    Attributes:
        n_heads: number of query heads in each layer.

    ``named`` is the dotted name, from the decoder layer, of the output projection where the
    structure does not tell it. Raises `ModelError` for a model without heads.
    """

    def __init__(
        self, model: nn.Module, layers: DecoderLayers, width: int, named: str | None = None
    ) -> None:
        config = text_config(model)
        n_heads = _config_value(config, "num_attention_heads")
        if not is_integer(n_heads, 1):
            raise ModelError(
                f"{type(model).__name__} has no attention heads, or not as many in every layer"
                f" (config.num_attention_heads is {n_heads!r}); steer the residual stream,"
                " part='residual'."
            )
        self.n_heads: int = n_heads
        self._layers = layers
        self._width = width
        self._head_width = _head_width(config, n_heads, width)
        self._named = named

    def at(self, layer: int) -> tuple[nn.Module, int]:
        """The output projection of a layer's attention, and the width of all its heads together.

        Raises `ModelError` where there is none, or more than one could be it.
        """
        module = unwrapped(self._layers.at(layer))
        found = _projections(module)
        where = f"layer {layer} ({type(module).__name__})"
        if self._named is not None:
            chosen = _named_projection(found, module, self._named, where)
            if chosen.n_in % self.n_heads:
                raise ModelError(
                    f"heads={self._named!r}: {chosen} in {where} is not given the outputs of"
                    f" {self.n_heads} heads."
                )
        elif not found:
            others = [i for i in range(len(self._layers)) if _projections(self._layers.at(i))]
            raise ModelError(
                f"{where} has no attention and so no heads; "
                + (f"layers with attention: {others}." if others else "nor has any other layer.")
            )
        else:
            chosen = choose_projection(found, self.n_heads, self._width, self._head_width, where)
        return module.get_submodule(chosen.path), chosen.n_in


def choose_projection(
    found: Sequence[Projection], n_heads: int, width: int, head_width: int | None, where: str
) -> Projection:
    """The one among the linear maps of an attention that the outputs of the heads go through.

    It returns ``width`` numbers and is given a whole number for each head. Among several it is
    given ``head_width`` for each (where known), and is not named after queries, keys, values or
    gates. Raises `ModelError` unless exactly one remains.
    """
    fitting = [one for one in found if one.n_out == width and one.n_in % n_heads == 0]
    exact = [one for one in fitting if one.n_in == n_heads * (head_width or 0)] or fitting
    candidates = [one for one in exact if not _INPUTS.search(one.path.rpartition(".")[2])] or exact
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ModelError(
            f"found no output projection of {n_heads} heads in {where}; its attention has"
            f" {_listed(found)}, and the width of the model is {width}."
        )
    raise ModelError(
        f"several linear maps in {where} could be the output projection of its attention:"
        f" {_listed(candidates)}. Name the right one, as in SteeredModel(model, tokenizer,"
        f" heads={candidates[0].path!r})."
    )


def _named_projection(
    found: Sequence[Projection], module: nn.Module, path: str, where: str
) -> Projection:
    """The projection named by the user, inside an attention or not."""
    try:
        widths = linear_widths(module.get_submodule(path))
    except AttributeError:
        widths = None
    if widths is None:
        known = f"it has {_listed(found)}" if found else "it has no attention"
        raise ModelError(f"heads={path!r} is not a linear map in {where}; {known}.")
    return Projection(path, *widths)


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """Width of what a linear map is given and of what it returns; None for other modules."""
    inner = unwrapped(module)
    for names in _WIDTHS:
        n_in, n_out = (getattr(inner, name, None) for name in names)
        if isinstance(n_in, int) and isinstance(n_out, int):
            return n_in, n_out
    return None


def _head_width(config: Any, n_heads: int, width: int) -> int | None:
    stated = _config_value(config, "head_dim")
    if isinstance(stated, int):
        return stated
    return None if width % n_heads else width // n_heads


def _config_value(config: Any, name: str) -> Any:
    """A value of a configuration; None also where reading it raises, since its layers differ."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def _projections(layer: nn.Module) -> list[Projection]:
    """The linear maps inside the attention of a decoder layer."""
    return [
        found
        for path, module in _attentions(unwrapped(layer), "")
        for found in _linear_maps(module, path)
    ]


def _attentions(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The outermost attentions below a module, with their names."""
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if _is_attention(unwrapped(child)):
            yield below, child
        else:
            yield from _attentions(child, below)


def _is_attention(module: nn.Module) -> bool:
    """Whether a module mixes tokens, and not by convolution as state-space mixers do."""
    # `forward` of the instance may have been replaced by one that takes any arguments.
    names = (*argument_names(module), *inspect.signature(type(module).forward).parameters)
    return "attention_mask" in names and not any(
        isinstance(part, _CONVOLUTIONS) for part in module.modules()
    )


def _linear_maps(module: nn.Module, path: str) -> Iterator[Projection]:
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        widths = linear_widths(child)
        if widths is None:
            yield from _linear_maps(child, below)
        else:  # adapters keep linear maps of their own inside, which are none of the attention's
            yield Projection(below, *widths)


def _listed(projections: Sequence[Projection]) -> str:
    return ", ".join(map(str, projections)) or "no linear maps"
