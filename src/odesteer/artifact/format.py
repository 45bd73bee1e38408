"""What the file of a steerer says.

Tensors stand in a safetensors file; everything else is one JSON object in its metadata:

    format      1
    needs       the first version of odesteer that reads this format
    method      the spec of the method, see `odesteer.artifact.state`
    site        {"layer", "position"}, or null
    provenance  the fields of `Provenance` that are known
    sha256      of all of the above and of the tensors
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact.container import Container, pack, parse_json
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.site import Site
from odesteer.artifact.state import Spec
from odesteer.errors import ArtifactError, InvalidInputError

FORMAT = 1
NEEDS = "0.1.0"

_FIELDS = ("format", "needs", "method", "site", "provenance", "sha256")


@dataclass(frozen=True)
class Content:
    """A steerer as plain data."""

    method: Spec
    tensors: Mapping[str, Tensor]
    site: Site | None
    provenance: Provenance

    def to_bytes(self) -> bytes:
        """The file."""
        known = {name: v for name, v in asdict(self.provenance).items() if v not in (None, {})}
        described = {
            "format": FORMAT,
            "needs": NEEDS,
            "method": self.method,
            "site": None if self.site is None else asdict(self.site),
            "provenance": known,
        }
        sha256 = fingerprint(described, self.tensors)
        return pack(_canonical({**described, "sha256": sha256}), self.tensors)

    @classmethod
    def read(cls, path: Path) -> "Content":
        """The content of a whole, unaltered file. Raises `ArtifactError` for any other."""
        container = Container.read(path)
        described = _described(container.text)
        tensors = container.tensors()
        if described.pop("sha256") != fingerprint(described, tensors):
            raise ArtifactError(
                "its content does not agree with its checksum; it was damaged, or changed after"
                " it was saved."
            )
        try:
            site = None if described["site"] is None else Site(**described["site"])
            provenance = Provenance(**described["provenance"])
        except (TypeError, InvalidInputError) as error:
            raise ArtifactError(f"its site or provenance makes no sense: {error}") from None
        return cls(described["method"], tensors, site, provenance)

    def digest(self) -> str:
        """sha256 of the method and the site: of what the steerer does, not of where it is from."""
        site = None if self.site is None else asdict(self.site)
        return fingerprint({"method": self.method, "site": site}, self.tensors)


def fingerprint(described: object, tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hexadecimal) of a JSON value and of tensors by name, type, shape and bits."""
    sha = hashlib.sha256(_canonical(described).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"\n{name!r} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _described(text: str) -> dict[str, Any]:
    described = parse_json(text, "its description")
    if not isinstance(described, dict) or type(described.get("format")) is not int:
        raise ArtifactError("its description has no format version.")
    version = described["format"]
    if version > FORMAT:
        needs = described.get("needs")
        release = f" {brief(needs)[1:-1]} or later" if isinstance(needs, str) else ""
        raise ArtifactError(
            f"it has format {version}, and this odesteer reads up to {FORMAT}; install"
            f" odesteer{release}: pip install --upgrade odesteer"
        )
    if version < 1 or set(described) != set(_FIELDS):
        raise ArtifactError(
            f"its description, of format {version}, has the fields {brief(sorted(described))}, not"
            f" {', '.join(_FIELDS)}."
        )
    return described
