"""The list of versions of the documentation site."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.version_docs import configuration, with_version

ROOT = Path(__file__).resolve().parents[2]


def test_versions_are_sorted_as_numbers_and_the_newest_is_latest() -> None:
    listed = with_version([], "0.9", "0.9.1")
    for name in ("0.10", "0.2", "0.9"):
        listed = with_version(listed, name, f"{name}.5")
    assert [one["version"] for one in listed] == ["0.10", "0.9", "0.2"]
    assert [one["aliases"] for one in listed] == [["latest"], [], []]
    assert listed[1]["title"] == "0.9.5"


def test_other_names_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"MAJOR\.MINOR"):
        with_version([], "../elsewhere", "1.0")


def test_the_site_of_a_version_goes_to_its_own_folder() -> None:
    text = configuration((ROOT / "zensical.toml").read_text(), "build/one")
    assert text.count("site_dir = ") == 1
    assert 'site_dir = "build/one"' in text
    assert 'provider = "mike"' in text
