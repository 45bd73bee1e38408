"""File formats 1 and 2 of steerers and sets of steerers.

Tensors are stored in a safetensors file, everything else as one JSON object in its
metadata. Format 1 is one steerer:

    format      1
    needs       the first version of odesteer that reads this format
    method      the spec of the method, see `odesteer.artifact.serialization`
    site        {"layer", "position"} (and "part" where it is not the residual stream), or null
    provenance  the fields of `Provenance` that are known
    sha256      of all of the above and of the tensors

Format 2 is a set of steerers, or one with a gate:

    format      2
    needs       as above
    kind        "set" or "steerer"
    steerers    a list of {"method", "site", "provenance", "gate"}; a gate is null or {"condition":
                place in the next list, "below" or "above": level, "pool"}
    conditions  a list of {"method", "site", "provenance"}
    sha256      as above
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact.limits import DEFAULT_LIMITS, FileLimits
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.safetensors_file import SafetensorsFile, pack
from odesteer.artifact.serialization import Spec, check_costs, check_tensors
from odesteer.artifact.site import Site
from odesteer.errors import ArtifactError, InvalidInputError
from odesteer.untrusted import brief, parse_json

FORMAT = 2
NEEDS = "0.1.0"

_SPEC_FIELDS = ("method", "site", "provenance")
_FIELDS = {
    1: ("format", "needs", *_SPEC_FIELDS, "sha256"),
    2: ("format", "needs", "kind", "steerers", "conditions", "sha256"),
}
_KINDS = ("steerer", "set")


@dataclass(frozen=True)
class SteererSpec:
    """One steerer as plain data: specs of method and gate, site and provenance."""

    method: Spec
    site: Site | None
    provenance: Provenance
    gate: Spec | None = None

    @classmethod
    def read(cls, described: object, gated: bool = False) -> "SteererSpec":
        """Read the JSON object of a steerer. Raises `ArtifactError` for any other value."""
        names = (*_SPEC_FIELDS, "gate") if gated else _SPEC_FIELDS
        if not isinstance(described, dict) or set(described) != set(names):
            raise ArtifactError(f"fields {', '.join(names)} expected, found {brief(described)}.")
        gate = described.get("gate")
        if gate is not None and not isinstance(gate, dict):
            raise ArtifactError(f"a gate expected, found {brief(gate)}.")
        try:
            site = None if described["site"] is None else Site(**described["site"])
            provenance = Provenance(**described["provenance"])
        except (TypeError, InvalidInputError) as error:
            raise ArtifactError(f"its site or provenance makes no sense: {error}") from None
        return cls(described["method"], site, provenance, gate)

    def effect(self) -> dict[str, Any]:
        """Method and site as JSON, without the provenance."""
        site = None if self.site is None else self.site.described()
        return {"method": self.method, "site": site}

    def described(self) -> dict[str, Any]:
        """Method, site and provenance as JSON, without the gate."""
        known = {name: v for name, v in asdict(self.provenance).items() if v not in (None, {})}
        return {**self.effect(), "provenance": known}


@dataclass(frozen=True)
class Content:
    """The content of a file: steerers and conditions of gates as plain data, and all tensors."""

    steerers: tuple[SteererSpec, ...]
    tensors: Mapping[str, Tensor]
    conditions: tuple[SteererSpec, ...] = ()
    is_set: bool = False

    @property
    def format(self) -> int:
        """The oldest format that can hold it."""
        return 2 if self.is_set or self.conditions else 1

    def to_bytes(self) -> bytes:
        """The bytes of the file."""
        described: dict[str, Any] = {"format": self.format, "needs": NEEDS}
        if self.format == 1:
            described |= self.steerers[0].described()
        else:
            described |= {
                "kind": _KINDS[self.is_set],
                "steerers": [{**spec.described(), "gate": spec.gate} for spec in self.steerers],
                "conditions": [spec.described() for spec in self.conditions],
            }
        sha256 = fingerprint(described, self.tensors)
        return pack(_canonical({**described, "sha256": sha256}), self.tensors)

    @classmethod
    def read(cls, path: Path, limits: FileLimits = DEFAULT_LIMITS) -> "Content":
        """The content of a whole, unaltered file. Raises `ArtifactError` for any other.

        Before the tensors are read, their names, types and shapes in the header are checked
        against the description, and both against the limits.
        """
        with SafetensorsFile.open(path, limits) as file:
            declared = file.declared(limits)
            described = _described(file.text)
            sha256 = described.pop("sha256")
            steerers, conditions, is_set = _steerers_of(described)
            check_tensors(described, declared)
            check_costs(described, limits)
            tensors = file.tensors()
        if sha256 != fingerprint(described, tensors):
            raise ArtifactError(
                "its content does not agree with its checksum; it was damaged, or changed after"
                " it was saved."
            )
        return cls(steerers, tensors, conditions, is_set)

    def digest(self) -> str:
        """sha256 (hexadecimal) of methods, sites and gates, without the provenance."""
        if self.format == 1:
            return fingerprint(self.steerers[0].effect(), self.tensors)
        steerers = [{**spec.effect(), "gate": spec.gate} for spec in self.steerers]
        conditions = [spec.effect() for spec in self.conditions]
        return fingerprint({"steerers": steerers, "conditions": conditions}, self.tensors)


def _steerers_of(
    described: Mapping[str, Any],
) -> tuple[tuple[SteererSpec, ...], tuple[SteererSpec, ...], bool]:
    """The steerers in a description, the conditions of their gates, and whether it is a set."""
    if described["format"] == 1:
        return (SteererSpec.read({name: described[name] for name in _SPEC_FIELDS}),), (), False
    steerers, conditions, kind = (described[n] for n in ("steerers", "conditions", "kind"))
    if not isinstance(steerers, list) or not isinstance(conditions, list) or kind not in _KINDS:
        raise ArtifactError(f"it holds no list of steerers, or is no set: {brief(kind)}.")
    if not steerers or (kind == "steerer" and len(steerers) > 1):
        raise ArtifactError(f"it is a {kind} of {len(steerers)} steerers.")
    return (
        tuple(SteererSpec.read(spec, gated=True) for spec in steerers),
        tuple(map(SteererSpec.read, conditions)),
        kind == "set",
    )


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
    described = parse_json(text, "its description", ArtifactError)
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
    if version not in _FIELDS or set(described) != set(_FIELDS[version]):
        raise ArtifactError(
            f"its description, of format {version}, has the fields {brief(sorted(described))}, not"
            f" {', '.join(_FIELDS[max(version, 1)])}."
        )
    return described
