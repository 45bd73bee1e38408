"""Artifacts that earlier releases wrote load, and compute the same to the bit.

This holds in every release. Never write a file of ``stored/`` again: what fails here fails for
those who saved a steerer. ``write_stored.py`` adds the artifacts of what is newly registered.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from write_stored import FOLDER, arithmetic, computed

import odesteer
from odesteer.artifact import Steerer, SteererSet
from odesteer.artifact.serialization import FAMILIES, registry_of

EXPECTED = ".expected.safetensors"
NAMES = sorted(path.name.removesuffix(EXPECTED) for path in FOLDER.glob(f"*{EXPECTED}"))


def described(path: Path) -> dict[str, Any]:
    """The JSON text in an artifact's metadata."""
    with safe_open(path, "pt") as file:
        text: dict[str, Any] = json.loads(file.metadata()["odesteer"])
    return text


def classes(spec: Any) -> set[tuple[str, str]]:
    """Family and name of every object in a spec."""
    if isinstance(spec, list):
        return set().union(*map(classes, spec))
    if not isinstance(spec, dict):
        return set()
    own = {(spec["family"], spec["name"])} if "family" in spec else set()
    return own.union(*map(classes, spec.values()))


def test_every_artifact_is_here_with_what_it_computes() -> None:
    artifacts = {path.name.removesuffix(".safetensors") for path in FOLDER.iterdir()}
    assert artifacts == {*NAMES, *(f"{name}.expected" for name in NAMES)}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


def test_every_registered_class_is_stored() -> None:
    stored = set().union(*(classes(described(FOLDER / f"{name}.safetensors")) for name in NAMES))
    missing = {(family, name) for family in FAMILIES for name in registry_of(family)} - stored
    assert not missing, "list it in tests/artifact/write_stored.py, then run that file"


def test_both_formats_are_stored() -> None:
    formats = {name: described(FOLDER / f"{name}.safetensors")["format"] for name in NAMES}
    assert {name for name, version in formats.items() if version == 2} == {
        "gated",
        "set",
        "set-gated",
    }
    assert set(formats.values()) == {1, 2}


@pytest.mark.parametrize("name", NAMES)
def test_stored_artifacts_compute_the_same_to_the_bit(name: str) -> None:
    artifact = odesteer.load(FOLDER / f"{name}.safetensors")
    assert isinstance(artifact, SteererSet if name.startswith("set") else Steerer)
    with safe_open(FOLDER / f"{name}{EXPECTED}", "pt") as file:
        expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert artifact.digest() == metadata["digest"]
    found = computed(artifact, expected.pop("inputs"))
    assert set(found) == set(expected)
    differ = [key for key in found if not torch.equal(found[key], expected[key])]
    if differ and metadata["arithmetic"] != arithmetic():
        # This machine rounds otherwise than the one that wrote the file, whatever is computed.
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    else:
        assert not differ
