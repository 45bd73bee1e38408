"""The decoder layers of a model inside vLLM, and the hooks on them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.vllm import custom_op as op


def find_layers(model: nn.Module, n_layers: int) -> Sequence[nn.Module]:
    """The list of decoder layers: the outermost one of its length.

    With pipeline parallelism it has placeholders for the layers of other ranks, so that indices
    are those of the whole model. Raises `ModelError` unless there is exactly one.
    """
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    }
    outer = [p for p in lists if not any(p.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        found = f"{len(outer)} ({', '.join(outer)})" if outer else "none"
        raise ModelError(
            f"{type(model).__name__} should have one list of {n_layers} decoder layers, and has"
            f" {found}; this architecture is not supported."
        )
    return list(lists[outer[0]])


def place_hooks(layers: Sequence[nn.Module], numbers: Sequence[int]) -> tuple[int, ...]:
    """Let layers of these numbers call the operation; the numbers of those that are here.

    To be done before the model is compiled: hooks that come later are not part of the graph.
    """
    here = tuple(n for n in numbers if type(layers[n]).__name__ != "PPMissingLayer")
    for number in here:
        layers[number].register_forward_hook(partial(_steer_output, number))
    return here


def _steer_output(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Steer what a decoder layer returns: hidden states, or these and a residual to be added."""
    hidden, residual = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    if not isinstance(hidden, Tensor) or not (residual is None or isinstance(residual, Tensor)):
        parts = output if isinstance(output, (tuple, list)) else (output,)
        raise ModelError(
            f"{type(module).__name__} returns ({', '.join(type(part).__name__ for part in parts)});"
            " the plugin steers layers that return hidden states, or hidden states and a residual."
        )
    op.steer(hidden, residual, layer)
