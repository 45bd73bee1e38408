"""Finding the decoder layers of a model by its structure.

`choose_layers` decides from names and lengths alone; the other functions read these off a model.
No class names and no table of architectures are involved.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from odesteer.errors import ModelError
from odesteer.untrusted import is_integer


@dataclass(frozen=True)
class LayerList:
    """A list of modules inside a model.

    Attributes:
        path: its dotted name, from the root of the model.
        types: class name of each element, in order.
    """

    path: str
    types: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.types)

    def __str__(self) -> str:
        return f"{self.path!r} ({len(self)} x {' or '.join(sorted(set(self.types)))})"

    def is_inside(self, path: str) -> bool:
        """Whether it lies below the module called ``path`` (the root is ``""``)."""
        return not path or self.path == path or self.path.startswith(f"{path}.")


@dataclass(frozen=True)
class DecoderLayers:
    """The decoder layers of a model, in order.

    Attributes:
        path: dotted name of the list in the model.
        modules: the layers; ``modules[0]`` is the one next to the embedding.
        owner: the module whose forward pass runs them and is given the padding mask.
    """

    path: str
    modules: tuple[nn.Module, ...]
    owner: nn.Module

    def __len__(self) -> int:
        return len(self.modules)

    def at(self, layer: int) -> nn.Module:
        """Layer number ``layer``, from zero. Raises `ModelError` if there is none."""
        if not is_integer(layer):
            raise ModelError(f"layer must be an integer, not {layer!r}.")
        if not 0 <= layer < len(self):
            raise ModelError(
                f"there is no layer {layer}: this model has {len(self)} decoder layers"
                f" ({self.path}), counted from zero: 0 to {len(self) - 1}."
            )
        return self.modules[layer]


def find_decoder_layers(model: nn.Module, layers: str | None = None) -> DecoderLayers:
    """The list of decoder layers of a causal language model.

    Looks through wrappers (adapters, compiled modules, multimodal models). ``layers`` names the
    list instead, as in ``"model.decoder.layers"``. Raises `ModelError` for encoder-decoder
    models, where no list or more than one qualifies, and for a name that is not a list of layers.
    """
    config = text_config(model)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder model; only decoder-only language"
            " models can be steered."
        )
    lists = _layer_lists(model)
    if layers is None:
        n_layers = getattr(config, "num_hidden_layers", None)
        chosen = choose_layers(list(lists.values()), n_layers, _decoder_path(model))
    else:
        chosen = named_layers(list(lists.values()), layers)
    elements = tuple(model.get_submodule(chosen.path).children())
    return DecoderLayers(chosen.path, elements, _owner(model, chosen.path))


def choose_layers(lists: Sequence[LayerList], n_layers: int | None, decoder: str = "") -> LayerList:
    """Which of ``lists`` holds the decoder layers.

    It is as long as the configuration says (``n_layers``, where known), lies inside no other
    such list, and below the module called ``decoder`` if any does. Raises `ModelError` unless
    exactly one remains.
    """
    right_length = [item for item in lists if len(item) == n_layers] or list(lists)
    outermost = [
        item
        for item in right_length
        if not any(item is not other and item.is_inside(other.path) for other in right_length)
    ]
    candidates = [item for item in outermost if item.is_inside(decoder)] or outermost
    if len(candidates) == 1:
        return candidates[0]
    expected = "" if n_layers is None else f" ({n_layers} by its configuration)"
    if not candidates:
        raise ModelError(f"found no list of decoder layers{expected} in this model.")
    raise ModelError(
        f"several lists could be the decoder layers{expected}: {_listed(candidates)}."
        f" Name the right one, as in SteeredModel(model, tokenizer, layers={candidates[0].path!r})."
    )


def named_layers(lists: Sequence[LayerList], path: str) -> LayerList:
    """The list called ``path``; raises `ModelError` with the ones that exist."""
    for item in lists:
        if item.path == path:
            return item
    known = f"this model has {_listed(lists)}" if lists else "this model has none"
    raise ModelError(f"layers={path!r} is not a list of layers; {known}.")


def text_config(model: nn.Module) -> Any:
    """The configuration of the language model (of its text part), or None without one."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        return config.get_text_config(decoder=True)
    return config


def execution_device(module: nn.Module) -> torch.device:
    """The device a module computes on, also if accelerate has offloaded its weights."""
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device(device)
    tensors = (*module.parameters(), *module.buffers())
    return next((t.device for t in tensors if t.device.type != "meta"), torch.device("cpu"))


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the arguments of a module's forward pass, in order."""
    return tuple(inspect.signature(module.forward).parameters)


def accepts_argument(module: nn.Module, name: str) -> bool:
    """Whether a module's forward pass takes an argument of this name."""
    parameters = inspect.signature(module.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _layer_lists(model: nn.Module) -> dict[str, LayerList]:
    return {
        path: LayerList(path, tuple(type(unwrapped(element)).__name__ for element in elements))
        for path, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and (elements := list(module.children()))
        # A decoder layer has parts; lists of norms, projections or embeddings do not qualify.
        and all(any(unwrapped(element).children()) for element in elements)
    }


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def _decoder_path(model: nn.Module) -> str:
    """Path of the module that `get_decoder` of transformers returns; "" (the root) without one."""
    get_decoder = getattr(model, "get_decoder", None)
    if get_decoder is None:
        return ""
    decoder = get_decoder()
    return next((path for path, module in model.named_modules() if module is decoder), "")


def _owner(model: nn.Module, path: str) -> nn.Module:
    """The nearest ancestor of the list that is given an attention mask."""
    while path:
        path = path.rpartition(".")[0]
        ancestor = model.get_submodule(path)
        if "attention_mask" in argument_names(ancestor):
            return ancestor
    return unwrapped(model)


def _listed(lists: Sequence[LayerList]) -> str:
    return ", ".join(str(item) for item in lists)
