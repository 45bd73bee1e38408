"""Control vectors in GGUF files, as llama.cpp, repeng and EasySteer read and write them.

``direction.N`` is added to the output of block N, counted from zero, at all tokens. Block 0 cannot
be written: llama.cpp refuses ``direction.0``. It ignores all keys, so the tokens that a steerer
acts on are kept in ``odesteer.position.N`` for reading back.
"""

import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from odesteer.errors import ArtifactError, InvalidInputError, MissingDependencyError
from odesteer.files import write_file
from odesteer.interchange.control_vector import DEFAULT_POSITION, ControlVector
from odesteer.untrusted import brief

ARCHITECTURE = "controlvector"
MAX_BYTES = 2**30

_DIRECTION = re.compile(r"direction\.(0|[1-9]\d{0,5})")
_POSITION = "odesteer.position."


class EverywhereWarning(UserWarning):
    """A steerer of some tokens is written to a format that steers all tokens."""


def write_gguf(vector: ControlVector, path: str | os.PathLike[str]) -> None:
    """Write a control vector, whole or not at all.

    Raises `InvalidInputError` for a vector at layer 0, `MissingDependencyError` without gguf, and
    `ArtifactError` if the file cannot be written. Warns where the vector is of some tokens only.
    """
    gguf = _gguf()
    if 0 in vector.directions:
        raise InvalidInputError(
            "there is a vector for layer 0, and control vectors of llama.cpp begin at layer 1:"
            " direction.0 is refused there. Fit the steerer at layer 1 or later."
        )
    partial = {layer for layer in vector.directions if vector.position(layer) != DEFAULT_POSITION}
    if partial:
        warnings.warn(
            f"at layer {min(partial)} the steerer acts on {vector.position(min(partial))!r} tokens;"
            " control vectors of llama.cpp act on all tokens, those of the prompt included.",
            EverywhereWarning,
            stacklevel=2,
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(file, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", vector.model_hint or "unknown")
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vector.directions))
        for layer in partial:
            writer.add_string(f"{_POSITION}{layer}", vector.position(layer))
        for layer, direction in vector.directions.items():
            writer.add_tensor(f"direction.{layer}", direction.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        data = file.read_bytes()
    write_file(Path(path), data)


def read_gguf(path: str | os.PathLike[str]) -> ControlVector:
    """Read a control vector.

    Raises `ArtifactError`, with the reason, for any other file, and `MissingDependencyError`
    without gguf.
    """
    gguf = _gguf()
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(
                f"cannot read {path}: it has {path.stat().st_size:,} bytes, and control vectors"
                f" have {MAX_BYTES:,} at most; is it a model?"
            )
        reader = gguf.GGUFReader(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}.") from None
    except ArtifactError:
        raise
    except Exception as error:  # the reader checks little; damage shows as errors of any kind
        raise ArtifactError(f"cannot read {path}: it is no sound GGUF file ({error}).") from None
    try:
        return _vector_in(reader)
    except (ArtifactError, InvalidInputError) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from None


def _vector_in(reader: Any) -> ControlVector:
    names = [tensor.name for tensor in reader.tensors]
    architecture = _text(reader, "general.architecture")
    others = [name for name in names if not _DIRECTION.fullmatch(name)]
    if others or not names:
        what = f"a file of architecture {architecture!r:.40}" if architecture else "a GGUF file"
        raise ArtifactError(
            f"it is {what} with {len(names)} tensors, such as {brief(others[0]) if others else ''},"
            " and no control vector: that has tensors direction.N and nothing else."
        )
    directions, positions = {}, {}
    for tensor in reader.tensors:
        layer = int(tensor.name.partition(".")[2])
        if tensor.tensor_type.name not in ("F32", "F16", "F64"):
            raise ArtifactError(f"{tensor.name} is {tensor.tensor_type.name}, not F32.")
        if len(tensor.shape) != 1:
            raise ArtifactError(f"{tensor.name} has the shape {[*map(int, tensor.shape)]}.")
        if layer == 0:
            raise ArtifactError(
                "it has a tensor direction.0, which llama.cpp refuses; blocks that can be steered"
                " begin at 1."
            )
        directions[layer] = torch.from_numpy(tensor.data.copy())
        position = _text(reader, f"{_POSITION}{layer}")
        if position is not None:
            positions[layer] = position
    return ControlVector(directions, positions, _text(reader, f"{ARCHITECTURE}.model_hint"))


def _text(reader: Any, key: str) -> str | None:
    """A key's value, where it is a text."""
    found = reader.get_field(key)
    if found is None or not found.types or found.types[-1].name != "STRING":
        return None
    return bytes(found.parts[-1]).decode(errors="replace")


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingDependencyError(
            'GGUF files need the package gguf; install it with: pip install "odesteer[gguf]"'
        ) from None
    return gguf
