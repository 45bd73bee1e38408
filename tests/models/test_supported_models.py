"""The page of supported models: rows of its tables, tried again."""

import re
from pathlib import Path

import pytest

import supported_models
import tiny_models

PAGE = supported_models.PAGE.read_text()
ROWS = dict(re.findall(r"^\| `(\w[\w-]*)` \| (yes|no) \|", PAGE, re.MULTILINE))
STEERED = [name for name, steers in ROWS.items() if steers == "yes"]


def test_the_page_has_every_architecture_of_the_tests() -> None:
    assert len(STEERED) > 90
    assert set(tiny_models.ARCHITECTURES) - {"falcon_new"} <= set(ROWS)


@pytest.mark.parametrize("name", STEERED[::12])
def test_architectures_of_the_page(name: str) -> None:
    """Some of them; all take minutes, with python tests/supported_models.py."""
    row = supported_models.tried(name)
    assert row is not None
    assert row.line() in PAGE


@pytest.mark.parametrize("name", supported_models.FORMATS)
def test_formats_of_the_page(name: str, tmp_path: Path) -> None:
    package, _ = supported_models.FORMATS[name]
    if not re.search(rf"^\| {re.escape(name)} \| `{package}` \| yes \|", PAGE, re.MULTILINE):
        pytest.skip("the page does not say that it works")
    pytest.importorskip(package)
    assert supported_models.tried_format(name, tmp_path) == "yes"
