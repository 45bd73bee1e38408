"""Strict reading and deterministic writing of safetensors files with a text in the metadata."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from odesteer.artifact.limits import FileLimits
from odesteer.errors import ArtifactError
from odesteer.untrusted import brief, is_integer, parse_json

MAX_HEADER_BYTES = 100_000_000

_KEY = "odesteer"
_METADATA = "__metadata__"
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
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
    """An open safetensors file whose header is parsed and whose tensors are not read yet."""

    header: Mapping[str, Any]
    file: BinaryIO
    start: int
    size: int

    @classmethod
    @contextmanager
    def open(cls, path: Path, limits: FileLimits) -> Iterator["SafetensorsFile"]:
        """Open a file.

        Raises `ArtifactError` if it is no safetensors file, or if its header is longer than the
        limits allow, and `OSError`.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(8), size)
            limits.check("n_header_bytes", length, "too many bytes of a header")
            header = parse_json(file.read(length), "its header", ArtifactError)
            if not isinstance(header, dict):
                raise ArtifactError("it is not a safetensors file: its header is no JSON object.")
            yield cls(header, file, 8 + length, size)

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

    def declared(self, limits: FileLimits) -> dict[str, tuple[str, list[int]]]:
        """Type and shape of each tensor, by the header.

        Raises `ArtifactError` unless tensors of known types fill the file without gaps or overlaps
        and keep the limits.
        """
        limits.check("n_tensors", len(self.names), "too many tensors")
        self._check_table()
        limits.check("n_bytes", self.size - self.start, "too many bytes of tensors")
        entries = {name: self.header[name] for name in self.names}
        return {
            name: (str(_DTYPES[entry["dtype"]]).removeprefix("torch."), entry["shape"])
            for name, entry in entries.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, each in memory of its own; call `declared` first.

        Products of matrices may round by the address of an operand, so this must be aligned.
        """
        return {name: self._tensor(self.header[name]) for name in self.names}

    def _tensor(self, entry: Mapping[str, Any]) -> Tensor:
        begin, end = entry["data_offsets"]
        data = torch.empty(end - begin, dtype=torch.uint8)
        self.file.seek(self.start + begin)
        view = data.numpy().data
        while view:
            n_read = self.file.readinto(view)  # type: ignore[attr-defined]
            if not n_read:
                raise ArtifactError("it became shorter while it was read.")
            view = view[n_read:]
        return data.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])

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
        stored = self.size - self.start
        if end != stored:
            raise ArtifactError(
                f"its tensors take {end} bytes, but {stored} are there: the file is"
                f" {'truncated' if stored < end else 'too long'}."
            )


def _header_length(start: bytes, size: int) -> int:
    length = int.from_bytes(start, "little")
    # A header of 640 bytes begins like a pickle, but no pickle has a length that fits the file.
    fits = len(start) == 8 and length <= min(MAX_HEADER_BYTES, size - 8)
    if start.startswith(_PICKLES) and not fits:
        raise ArtifactError(
            "it looks like a pickle or a zip archive, which odesteer never opens; steerers are"
            " safetensors files."
        )
    if len(start) < 8:
        raise ArtifactError(f"it is no safetensors file: it has only {size} bytes.")
    if not fits:
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
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ArtifactError(f"tensor {brief(name)} has the unknown type {brief(dtype)}.")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ArtifactError(
            f"tensor {brief(name)} has the shape {brief(shape)} and the offsets {brief(offsets)}."
        )
    n_bytes = _DTYPES[dtype].itemsize
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
