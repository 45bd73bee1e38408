"""What results depend on, as digests: another configuration never finds the results of this one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import torch

from odesteer.estimator import Parametrised
from odesteer.evaluation.item import Item
from odesteer.models import SteeredModel


def plain(value: Any) -> Any:
    """A value as JSON has it; objects as their class and all their parameters."""
    if isinstance(value, Parametrised):
        cls = type(value)
        parameters = {name: plain(inner) for name, inner in value.get_params().items()}
        return {"class": f"{cls.__module__}.{cls.__qualname__}", **parameters}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(inner) for name, inner in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return repr(value)


def digest(value: Any, length: int = 16) -> str:
    """Of a value as JSON, hexadecimal."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def item_digest(item: Item) -> str:
    """Of what is asked and of what judges are told."""
    prompt = item.prompt
    asked = prompt if isinstance(prompt, str) else [[m.role, m.content] for m in prompt]
    return digest([item.key, asked, plain(item.reference)], 12)


def model_digest(lm: SteeredModel) -> str:
    """Of a model's configuration and the beginning of each of its tensors.

    Reading all of a large model would take longer than many a benchmark; another training changes
    every tensor.
    """
    found = hashlib.sha256()
    config: Any = getattr(lm.model, "config", None)
    described = dict(config.to_dict()) if hasattr(config, "to_dict") else {}
    for name in ("_name_or_path", "transformers_version"):
        described.pop(name, None)
    found.update(json.dumps(described, sort_keys=True, default=repr).encode())
    for name, tensor in lm.model.state_dict().items():
        head = tensor.detach().flatten()[:64].to("cpu", torch.float32).numpy().tobytes()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + head)
    return found.hexdigest()[:16]
