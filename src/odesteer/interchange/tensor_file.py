"""Steering vectors and LoReFT edits as plain tensors in safetensors files."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.artifact.limits import DEFAULT_LIMITS
from odesteer.artifact.safetensors_file import SafetensorsFile
from odesteer.errors import ArtifactError
from odesteer.interchange.control_vector import DEFAULT_POSITION, ControlVector
from odesteer.methods import SubspaceMap
from odesteer.untrusted import brief

_NUMBER = re.compile(r"\d+")
_ROTATION = "rotate_layer"
# W and b beside R, in the files of pyreft and of EasySteer.
_SOURCES = (("weight", "bias"), ("learned_source.weight", "learned_source.bias"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises `ArtifactError` for what is none, and for a steerer."""
    with SafetensorsFile.open(path, DEFAULT_LIMITS) as file:
        metadata = file.header.get("__metadata__")
        if isinstance(metadata, dict) and "odesteer" in metadata:
            raise ArtifactError("it is a steerer already; use it as it is.")
        file.declared(DEFAULT_LIMITS)
        return file.tensors()


def steerer_of(
    tensors: Mapping[str, Tensor], layer: int | None, position: str | None
) -> Steerer | SteererSet:
    """The steerer of tensors by name: LoReFT edits, or a vector for each layer.

    The layer is the only number in a tensor's name, or ``layer``. Raises `ArtifactError` where that
    leaves it open.
    """
    rotations = [name for name in tensors if name.rpartition(".")[2] == _ROTATION]
    if rotations:
        return _edits(tensors, rotations, layer, position)
    if layer is not None:
        if len(tensors) != 1:
            raise ArtifactError(
                f"it holds {len(tensors)} tensors {brief(sorted(tensors))}; say which one belongs"
                f" to layer {layer} with its name (--tensor)."
            )
        directions = {layer: next(iter(tensors.values()))}
    else:
        directions = {}
        for name, tensor in tensors.items():
            number = _layer_in(name)
            if number in directions:
                raise ArtifactError(f"two tensors are of layer {number}, one of them {name!r:.80}.")
            directions[number] = tensor
    return ControlVector(directions).to_steerer(position)


def _edits(
    tensors: Mapping[str, Tensor], rotations: list[str], layer: int | None, position: str | None
) -> Steerer | SteererSet:
    if layer is not None and len(rotations) > 1:
        raise ArtifactError(f"it holds edits of {len(rotations)} layers, and {layer} is one.")
    left, steerers = set(tensors), []
    for name in rotations:
        prefix = name.removesuffix(_ROTATION)
        names = next(
            (n for n in _SOURCES if all(prefix + part in tensors for part in n)), _SOURCES[0]
        )
        missing = [prefix + part for part in names if prefix + part not in tensors]
        if missing:
            raise ArtifactError(f"it has {name!r:.80} and no {missing[0]!r:.80} beside it.")
        left -= {name, *(prefix + part for part in names)}
        number = _layer_in(prefix) if layer is None else layer
        source, bias = (tensors[prefix + part] for part in names)
        edit = SubspaceMap.from_edit(tensors[name].T, source, bias)
        steerers.append(Steerer(edit, Site(number, position or DEFAULT_POSITION)))
    if left:
        raise ArtifactError(f"it holds tensors that belong to no edit: {brief(sorted(left))}.")
    return steerers[0] if len(steerers) == 1 else SteererSet(steerers)


def _layer_in(name: str) -> int:
    """The layer that a tensor's name says; ``intkey_layer.15.comp.….nunit.1#0`` has 15."""
    named = re.search(r"(?:layers?|blocks?|direction|h)[._]?(\d+)", name)
    numbers = [named[1]] if named else _NUMBER.findall(name)
    if len(numbers) != 1:
        raise ArtifactError(
            f"the name {name!r:.80} does not say which layer the tensor is of; name it with the"
            " layer, as in layer.13, or give the layer (--layer)."
        )
    return int(numbers[0])
