"""Directional ablation as an edit of the weights, for models whose layers add what they project."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.artifact import Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import Ablation
from odesteer.models.steered_model import SteeredModel

# What may be left of the component, as a share of the norm: rounding of float32 over the layers.
_LEFT = 1e-3
_PROBE = "The committee will publish its report next week."


def ablate_weights(lm: SteeredModel, steerer: Steerer) -> None:
    """Take the direction of an `Ablation` out of all that is written to the residual stream.

    W ← (I - r̂r̂ᵀ)W for the embeddings, the output projections of attention and the down projections
    of MLPs, with their biases, in float32 (Arditi et al., arXiv 2406.11717). The model then never
    has a component along r̂, at no cost in use, and is saved as any other. An output layer that
    shares the embeddings' weights gets a copy of its own.

    Whether it holds is measured: where a text still has the component at some layer, all weights
    are put back and a `ModelError` says so. So it is with norms behind the projections (Gemma 2 and
    3), whose scales bring r̂ back, and with experts in fused tensors; use the steerer there.

    Raises `InvalidInputError` for another method or part, or a target that is not 0.
    """
    method = steerer.method
    if not isinstance(method, Ablation) or method.component_ != 0:
        raise InvalidInputError(
            "weights can be edited for an Ablation with target='zero', not for"
            f" {type(method).__name__}"
            + (f" with target={method.target!r}." if isinstance(method, Ablation) else ".")
        )
    if steerer.site is not None and steerer.site.part != "residual":
        raise InvalidInputError(
            f"the direction belongs to {steerer.site}, and weights are edited for a direction of"
            " the residual stream; fit the Ablation there."
        )
    steerer.check_width(lm.width)
    model: Any = lm.model
    direction = method.direction_
    tied = model.get_output_embeddings() is not None and (
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )
    if tied:
        output = model.get_output_embeddings()
        output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    written = list(_writers(lm, direction))
    before = [(tensor, tensor.detach().clone()) for tensor, _ in written]
    try:
        with torch.no_grad():
            for tensor, dimension in written:
                tensor.copy_(_without(tensor, direction, dimension))
        left = _component(lm, direction)
        if left > _LEFT:
            raise ModelError(
                f"after the edit {left:.1%} of an activation still lies along the direction:"
                f" {lm.model_id} has norms or maps behind the projections that bring it back. The"
                " weights are as before; steer with the Ablation instead."
            )
    except BaseException:
        with torch.no_grad():
            for tensor, old in before:
                tensor.copy_(old)
        if tied:
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
        raise
    if tied:
        model.config.tie_word_embeddings = False


def _writers(lm: SteeredModel, direction: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Each weight or bias that is written to the residual stream, and its dimension of width d."""
    model: Any = lm.model
    yield model.get_input_embeddings().weight, 1
    width, sites = len(direction), lm.capturer().sites
    for number in range(lm.n_layers):
        layer = lm.layers.at(number)
        heads = sites.at(number, "heads").module
        for module in layer.modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim != 2:
                continue
            # torch's linear maps are [out, in], GPT-2's [in, out].
            out = 1 if type(module).__name__ == "Conv1D" else 0
            is_writer = module is heads or (
                weight.shape[out] == width and weight.shape[1 - out] != width
            )
            if not is_writer:
                continue
            yield weight, out
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                yield bias, 0


def _without(tensor: Tensor, direction: Tensor, dimension: int) -> Tensor:
    """``tensor`` without its component along the unit vector, in the type that it has."""
    wide = tensor.detach().double().movedim(dimension, -1)
    r = direction.to(wide)
    return (wide - (wide @ r)[..., None] * r).movedim(-1, dimension).to(tensor.dtype)


def _component(lm: SteeredModel, direction: Tensor) -> float:
    """The largest share of ‖a‖ along the direction, over layers and tokens of a text."""
    encoded = lm.encode(_PROBE)
    layers = list(range(lm.n_layers))
    tokens = [list(range(len(encoded)))]
    states = lm.capturer().capture([encoded], tokens, layers).states
    return max(
        float(((states[k] @ direction.to(states[k])).abs() / states[k].norm(dim=1)).max())
        for k in layers
    )
