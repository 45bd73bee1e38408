"""Forward hooks on the decoder layers of a vLLM model."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.vllm import custom_op


def find_layers(model: nn.Module, n_layers: int) -> Sequence[nn.Module]:
    """The list of decoder layers: the outermost `ModuleList` of this length.

    With pipeline parallelism it has placeholders for the layers of other ranks, so indices are
    those of the whole model. Raises `ModelError` unless there is exactly one.
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


def add_hooks(layers: Sequence[nn.Module], indices: Sequence[int]) -> tuple[int, ...]:
    """Let these layers call the operation; returns the indices of those on this rank.

    Must come before the model is compiled: later hooks are not part of the graph.
    """
    local = tuple(i for i in indices if type(layers[i]).__name__ != "PPMissingLayer")
    for index in local:
        layers[index].register_forward_hook(partial(_steer_output, index))
    return local


def _steer_output(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Steer the output of a decoder layer: hidden states, or these and a residual to be added."""
    hidden, residual = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    if not isinstance(hidden, Tensor) or not (residual is None or isinstance(residual, Tensor)):
        parts = output if isinstance(output, (tuple, list)) else (output,)
        raise ModelError(
            f"{type(module).__name__} returns ({', '.join(type(part).__name__ for part in parts)});"
            " the plugin steers layers that return hidden states, or hidden states and a residual."
        )
    custom_op.steer(hidden, residual, layer)
