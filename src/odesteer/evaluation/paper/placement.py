"""Where a model runs and in which type, found from the GPU's memory and the model's size."""

from dataclasses import dataclass
from typing import Any

import torch

from odesteer.evaluation.paper.models import Architecture

_ROOM = 6e9
"""Bytes that are left for activations and the cache of a small batch."""


@dataclass(frozen=True)
class Placement:
    """Device or device map, and floating-point type.

    Attributes:
        device: of torch; None with a device map.
        device_map: of transformers; None with a device.
        dtype: name of the type.
    """

    device: str | None
    device_map: str | None
    dtype: str

    @property
    def options(self) -> dict[str, Any]:
        """For `SteeredModel.from_pretrained`."""
        found: dict[str, Any] = {"dtype": self.dtype}
        if self.device_map is not None:
            return {**found, "device_map": self.device_map}
        return {**found, "device": self.device}

    def __str__(self) -> str:
        where = self.device if self.device_map is None else f"device_map={self.device_map}"
        return f"{where}, {self.dtype}"


def placement(
    architecture: Architecture, device: str | None = None, dtype: str | None = None
) -> Placement:
    """One GPU where the model has room on it, all of them and the CPU's memory where it has not.

    Half precision on GPUs, float32 on the CPU, where it is faster; ``device`` and ``dtype``
    override.
    """
    if device is not None or not torch.cuda.is_available():
        on = device or "cpu"
        return Placement(on, None, dtype or ("float32" if on == "cpu" else "bfloat16"))
    half = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    chosen = dtype or half
    size = {"float32": 4, "float64": 8}.get(chosen, 2)
    memory = torch.cuda.get_device_properties(0).total_memory
    if architecture.parameters * size + _ROOM <= memory:
        return Placement("cuda", None, chosen)
    return Placement(None, "auto", chosen)


def architecture_of(model: Any, config: Any) -> Architecture:
    """The size of a model (its outline suffices) with its configuration."""
    text: Any = getattr(config, "get_text_config", lambda decoder: config)(decoder=True)
    heads = int(text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    cached = getattr(text, "num_key_value_heads", None) or heads
    number = sum(parameter.numel() for parameter in model.parameters())
    return Architecture(float(number), int(text.num_hidden_layers), int(cached) * int(width))
