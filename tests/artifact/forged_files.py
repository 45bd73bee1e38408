"""Files of steerers whose header says something else than `save` wrote."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from odesteer.artifact import load
from odesteer.artifact.format import fingerprint
from odesteer.errors import ArtifactError


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, description and tensors of a file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["odesteer"]), data[8 + length :]


def pack(header: dict[str, Any], described: Any, tensors: bytes, sign: bool = True) -> bytes:
    """A file with a checksum that is right, whatever it says."""
    if sign:
        described = {key: value for key, value in described.items() if key != "sha256"}
        named = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                dtype = {"F32": torch.float32, "F64": torch.float64}[entry["dtype"]]
                raw = bytearray(tensors[begin:end])
                named[name] = torch.frombuffer(raw, dtype=dtype).reshape(entry["shape"])
        described["sha256"] = fingerprint(described, named)
    text = described if isinstance(described, str) else json.dumps(described)
    raw = json.dumps({**header, "__metadata__": {"odesteer": text}}).encode()
    return struct.pack("<Q", len(raw)) + raw + tensors


def refused(data: bytes, folder: Path) -> str:
    """The reason for which a file is refused."""
    path = folder / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        load(path)
    assert str(caught.value).startswith(f"cannot load {path}: ")
    return str(caught.value)
