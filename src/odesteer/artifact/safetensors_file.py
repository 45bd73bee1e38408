"""Strict reading and deterministic writing of safetensors files with a text in the metadata."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from odesteer.errors import ArtifactError
from odesteer.untrusted import brief, is_integer, parse_json

MAX_HEADER_BYTES = 100_000_000

_KEY = "odesteer"
_METADATA = "__metadata__"
_ITEM_BYTES = {
    **dict.fromkeys(("I8", "U8", "BOOL"), 1),
    **dict.fromkeys(("F16", "BF16", "I16"), 2),
    **dict.fromkeys(("F32", "I32"), 4),
    **dict.fromkeys(("F64", "I64"), 8),
}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def pack(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a file.

    Equal arguments give equal bytes: safetensors orders tensors by type and name, but keys of the
    metadata at random, so there is only one.
    """
    from safetensors.torch import save

    data: bytes = save(dict(tensors), metadata={_KEY: text})
    return data


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file whose header is parsed and whose tensors are not read yet."""

    header: Mapping[str, Any]
    header_bytes: int
    data: bytes

    @classmethod
    def read(cls, path: Path) -> "SafetensorsFile":
        """Read a file. Raises `ArtifactError` if it is no safetensors file, and `OSError`."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = _header_length(start, size)
            header = parse_json(file.read(length), "its header", ArtifactError)
            if not isinstance(header, dict):
                raise ArtifactError("it is not a safetensors file: its header is no JSON object.")
            file.seek(0)
            return cls(header, length, file.read())

    @property
    def names(self) -> list[str]:
        return [name for name in self.header if name != _METADATA]

    @property
    def text(self) -> str:
        """The text that odesteer wrote. Raises `ArtifactError` if there is none."""
        metadata = self.header.get(_METADATA)
        text = metadata.get(_KEY) if isinstance(metadata, dict) else None
        if not isinstance(text, str):
            raise ArtifactError(
                f"it is a safetensors file, but no steerer: it holds {len(self.names)} tensors"
                f" {brief(self.names)} and nothing that odesteer wrote."
            )
        return text

    def tensors(self) -> dict[str, Tensor]:
        """The tensors. Raises `ArtifactError` if their table and the file disagree."""
        from safetensors.torch import load

        self._check_table()
        try:
            # Copies, since some products of matrices round by where their operands begin.
            tensors = {name: tensor.clone() for name, tensor in load(self.data).items()}
        # The checks above may let through what the library or torch refuses.
        except Exception as error:
            raise ArtifactError(f"its tensors cannot be read: {error}") from error
        return tensors

    def _check_table(self) -> None:
        """Check that tensors of known types fill the file without gaps or overlaps."""
        extents = sorted((*_offsets(name, self.header[name]), name) for name in self.names)
        end = 0
        for begin, stop, name in extents:
            if begin != end:
                raise ArtifactError(
                    f"tensor {brief(name)} begins at byte {begin} and the one before ends at"
                    f" {end}: they overlap or leave a gap."
                )
            end = stop
        stored = len(self.data) - 8 - self.header_bytes
        if end != stored:
            raise ArtifactError(
                f"its tensors take {end} bytes, but {stored} are there: the file is"
                f" {'truncated' if stored < end else 'too long'}."
            )


def _header_length(start: bytes, size: int) -> int:
    if start.startswith(_PICKLES):
        raise ArtifactError(
            "it looks like a pickle or a zip archive, which odesteer never opens; steerers are"
            " safetensors files."
        )
    if len(start) < 8:
        raise ArtifactError(f"it is no safetensors file: it has only {size} bytes.")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES or 8 + length > size:
        raise ArtifactError(
            f"it is truncated, or no safetensors file: it claims a header of {length} bytes (at"
            f" most {MAX_HEADER_BYTES} are allowed) and has {size} bytes in all."
        )
    return length


def _offsets(name: str, entry: object) -> tuple[int, int]:
    """Offsets of the first byte of a tensor and of the end, from the end of the header."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"tensor {brief(name)} is described as {brief(entry)}.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ArtifactError(f"tensor {brief(name)} has the unknown type {brief(dtype)}.")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ArtifactError(
            f"tensor {brief(name)} has the shape {brief(shape)} and the offsets {brief(offsets)}."
        )
    n_bytes = _ITEM_BYTES[dtype]
    for length in shape:
        n_bytes *= length
    begin, end = offsets
    if end - begin != n_bytes:
        raise ArtifactError(
            f"tensor {brief(name)} of {dtype} {brief(shape)} needs {n_bytes} bytes, not"
            f" {end - begin}."
        )
    return begin, end


def _are_sizes(value: object) -> bool:
    """Whether a value is a list of at most 16 non-negative 63-bit integers."""
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(is_integer(item, 0) and item < 2**63 for item in value)
    )
