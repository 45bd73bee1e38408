"""Public names stay, and those that README and docs mention exist."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import odesteer
import public_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]

REMEDY = (
    "Public names changed. Users, scripts, clients and stored files rely on them: put back what is"
    " gone. If the change is meant, write the list anew with `python tests/public_names.py` and"
    " add a line to CHANGELOG.md."
)

# Options of other programs that the pages mention: lm-eval, vLLM, and benchmarks of the repository.
OTHERS = {
    *("--config", "--model_args", "--use_cache"),
    *("--enable-dbo", "--middleware", "--ubatch-size"),
    "--disk",
}

# Fields of the server's answers that the pages write with a dot.
FIELDS = {"odesteer.tokens"}


@pytest.mark.parametrize("section", public_names.SECTIONS)
def test_public_names_are_those_of_the_list(section: str) -> None:
    if section == "http":
        pytest.importorskip("fastapi", reason="fastapi is not installed: odesteer[serve]")
    listed = json.loads(public_names.FILE.read_text())[section]
    assert public_names.SECTIONS[section]() == listed, REMEDY


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def code(page: Path) -> str:
    """Everything on a page that is set as code."""
    text = page.read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return "\n".join([*fenced, *inline])


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of odesteer, or an attribute of one or of a class."""
    value: Any = odesteer
    path = "odesteer"
    for name in dotted.split(".")[1:]:
        path += f".{name}"
        try:
            value = getattr(value, name)
        except AttributeError:
            try:
                value = import_module(path)
            except ImportError:
                return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_dotted_names_on_pages_exist(page: Path) -> None:
    dotted = set(re.findall(r"(?<![\w./:-])odesteer(?:\.[A-Za-z_]\w*)+\b(?!=)", code(page)))
    known = {*json.loads(public_names.FILE.read_text())["entry points"]["groups read"], *FIELDS}
    assert not sorted(name for name in dotted - known if not exists(name))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_imports_on_pages_work(page: Path) -> None:
    missing = []
    for block in blocks(page, "python", "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("odesteer"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                missing += [name for name in names if not exists(name)]
    assert not missing


def test_readme_and_usage_name_what_the_package_has() -> None:
    text = "\n".join((ROOT / page).read_text() for page in ("README.md", "docs/usage.md"))
    spans = re.findall(r"`([A-Z]\w+)(?:\([^`]*\))?`", text)
    assert "Spherical" in spans
    assert not sorted(set(spans) - set(odesteer.__all__))


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each command line of odesteer on a page."""
    lines = re.sub(r"\\\n\s*", "", code(page)).splitlines()
    for line in lines:
        found = re.match(r"\s*(?:\$ )?odesteer ([a-z].*)", line)
        if found:
            shown = re.split(r"\s+#|[|>;…]| {2,}", found[1])[0]
            try:
                yield shlex.split(shown)
            except ValueError:
                yield shown.split()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_on_pages_exist(page: Path) -> None:
    known = public_names.commands()
    wrong = []
    for command, *words in command_lines(page):
        options = known.get(command, {"options": []})["options"]
        given = {word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
        if command not in known or not given <= {*options, "--help", "-h"}:
            wrong.append(" ".join(["odesteer", command, *words]))
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_options_on_pages_exist(page: Path) -> None:
    known = {option for each in public_names.commands().values() for option in each["options"]}
    inline = re.findall(r"`(--[A-Za-z][\w-]*)[^`\n]*`", page.read_text())
    assert not sorted({*inline} - known - OTHERS)
