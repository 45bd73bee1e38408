"""Steering vectors of vllm-lens: the JSON of its ``SteeringVector``."""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.errors import ArtifactError, MissingDependencyError
from odesteer.methods import CAA, NormPreserving
from odesteer.untrusted import brief, is_integer, is_number, parse_json

MAX_BYTES = 2**28

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "int16": torch.int16,  # bfloat16, which numpy lacks
}


def read_vllm_lens(path: Path, position: str | None = None) -> Steerer | SteererSet:
    """The steerer of a vector: activations `[n_layers, d]`, layers, scale, and norm matching.

    Raises `ArtifactError` for any other file, and `MissingDependencyError` where it is compressed
    and the package zstandard is not installed.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ArtifactError(f"it has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}.")
    content = parse_json(path.read_bytes(), "it", ArtifactError)
    if not isinstance(content, dict) or not {"activations", "layer_indices"} <= content.keys():
        raise ArtifactError(
            "it is JSON, but no steering vector of vllm-lens: that has activations and"
            " layer_indices."
        )
    if content.get("position_indices") is not None:
        raise ArtifactError(
            "it steers single token positions (position_indices); there is no such steerer here."
        )
    activations = _tensor(content["activations"])
    layers, scale = content["layer_indices"], content.get("scale", 1.0)
    if activations.ndim != 2:
        raise ArtifactError(
            f"its activations have the shape {tuple(activations.shape)}; one vector for each layer"
            " is needed, [n_layers, d]."
        )
    if not isinstance(layers, list) or not all(is_integer(layer, 0) for layer in layers):
        raise ArtifactError(f"its layer_indices are {brief(layers)}, no list of layers.")
    if len(set(layers)) != len(layers) or len(layers) != len(activations):
        raise ArtifactError(
            f"it has {len(activations)} vectors for the layers {brief(layers)}; one for each."
        )
    if not is_number(scale):
        raise ArtifactError(f"its scale is {brief(scale)}, no number.")
    steerers = []
    for layer, vector in zip(layers, activations, strict=True):
        method: Any = CAA.from_direction(scale * vector)
        if content.get("norm_match"):
            method = NormPreserving.around(method)
        steerers.append(Steerer(method, Site(layer, position or "all")))
    return steerers[0] if len(steerers) == 1 else SteererSet(steerers)


def _tensor(described: Any) -> Tensor:
    fields = {"data", "dtype", "shape"}
    if not isinstance(described, dict) or not fields <= described.keys():
        raise ArtifactError(f"its activations are {brief(described)}, no encoded tensor.")
    dtype, shape = described["dtype"], described["shape"]
    if dtype not in _DTYPES:
        raise ArtifactError(f"its activations have the unknown type {brief(dtype)}.")
    if not isinstance(shape, list) or not all(is_integer(n, 1) for n in shape):
        raise ArtifactError(f"its activations have the shape {brief(shape)}.")
    n_bytes = math.prod(shape) * _DTYPES[dtype].itemsize
    try:
        data = base64.b64decode(described["data"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ArtifactError(f"its activations are no base64: {error}.") from None
    if described.get("compression") is not None:
        data = _decompressed(data, described["compression"], n_bytes)
    if len(data) != n_bytes:
        raise ArtifactError(
            f"its activations have {len(data)} bytes, and {shape} of {dtype} take {n_bytes}."
        )
    tensor = torch.frombuffer(bytearray(data), dtype=_DTYPES[dtype]).reshape(shape)
    return (tensor.view(torch.bfloat16) if dtype == "int16" else tensor).float()


def _decompressed(data: bytes, compression: object, n_bytes: int) -> bytes:
    if compression != "zstd":
        raise ArtifactError(f"its activations have the unknown compression {brief(compression)}.")
    try:
        import zstandard
    except ImportError:
        raise MissingDependencyError(
            "its activations are compressed with zstd; install a reader with: pip install zstandard"
        ) from None
    try:
        # One byte more than declared, so that a longer content is seen and none fills memory.
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            return bytes(reader.read(n_bytes + 1))
    except zstandard.ZstdError as error:
        raise ArtifactError(f"its activations are no sound zstd: {error}.") from None
