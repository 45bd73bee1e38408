"""The generated reference names everything that is public, and the site shows every page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import odesteer
from odesteer.artifact import Provenance
from odesteer.artifact.format import _FIELDS

ROOT = Path(__file__).resolve().parents[2]
Public = dict[str, Any]
GENERATED = ("reference/api/", "reference/commands.md", "reference/http.md", "reference/names.md")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated pages."""
    pytest.importorskip("fastapi", reason="fastapi is not installed: odesteer[serve]")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        write_reference = import_module("write_reference")
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("reference")
    assert write_reference.write(folder) > 10
    return folder


@pytest.fixture(scope="module")
def public() -> Public:
    """The list of public names."""
    listed: Public = json.loads((ROOT / "tests" / "public_names.json").read_text())
    return listed


def test_every_python_name_is_documented(pages: Path) -> None:
    shown = "\n".join(page.read_text() for page in (pages / "api").glob("*.md"))
    names = [name for name in odesteer.__all__ if not name.startswith("_")]
    assert not [name for name in names if not re.search(rf"::: odesteer\.\w+\.{name}\b", shown)]


def test_every_command_and_option_is_documented(pages: Path, public: Public) -> None:
    page = (pages / "commands.md").read_text()
    parts = re.split(r"^## `odesteer(?: ([a-z-]+))?`", page, flags=re.MULTILINE)
    sections = {command or "": text for command, text in zip(parts[1::2], parts[2::2], strict=True)}
    hidden = {"serve": {"--max-tokens"}}  # the former name of --max-new-tokens
    for command, parameters in public["commands"].items():
        options = {*parameters["options"]} - hidden.get(command, set())
        missing = sorted(option for option in options if option not in sections[command])
        assert not missing, f"odesteer {command}: {missing}"


def test_every_registered_name_is_documented(pages: Path, public: Public) -> None:
    page = (pages / "names.md").read_text()
    for kind, names in public["registries"].items():
        section = page.partition(f"## {kind.capitalize()}\n")[2].partition("\n## ")[0]
        assert not [name for name in names if f"| `{name}` |" not in section], kind
        undescribed = re.findall(r"^\| `([\w-]+)` \| `\w+` \|  \|$", section, re.MULTILINE)
        assert not undescribed, f"{kind}: no docstring: {undescribed}"


def test_every_path_and_field_is_documented(pages: Path, public: Public) -> None:
    page = (pages / "http.md").read_text()
    assert not [path for path in public["http"]["paths"] if f" {path}\n" not in page]
    fields = {field for one in public["http"]["fields"] for field in one}
    assert not [field for field in fields if f"| `{field}` |" not in page]


def test_every_field_of_a_file_is_documented() -> None:
    page = (ROOT / "docs" / "artifact-format.md").read_text()
    names = [field.name for field in fields(Provenance)]
    names += [name for format in _FIELDS.values() for name in format]
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_site_shows_every_page_once() -> None:
    listed = re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text())
    written = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    own = {page for page in written if not page.startswith(GENERATED)}
    assert own == {page for page in listed if not page.startswith(GENERATED)}
    assert len(listed) == len({*listed})
