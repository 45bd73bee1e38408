"""Write the generated pages of the reference: Python names, commands, the HTTP interface.

``make docs`` runs this before it builds the site. The pages are not kept in the repository, so they
cannot be out of date.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

ROOT = Path(__file__).resolve().parents[1]

#: Packages of the API reference, in the order of its pages, with every name in their ``__all__``.
PACKAGES = (
    "models",
    "methods",
    "barriers",
    "autoencoders",
    "flows",
    "artifact",
    "data",
    "tuning",
    "evaluation",
    "terrarium",
    "plot",
    "cluster",
    "serving",
    "vllm",
)


def api_pages() -> dict[str, str]:
    """A page for each package, and one for what the top level adds: path to text."""
    import odesteer

    pages = {}
    shown: set[int] = set()
    for package in PACKAGES:
        module = import_module(f"odesteer.{package}")
        names = sorted(getattr(module, "__all__", ()), key=str.lower)
        shown |= {id(getattr(module, name)) for name in names}
        body = "\n\n".join(f"::: odesteer.{package}.{name}" for name in names)
        pages[f"api/{package}.md"] = f"# odesteer.{package}\n\n{_docstring(module)}\n\n{body}\n"
    top = [
        name
        for name in odesteer.__all__
        if not name.startswith("_") and id(getattr(odesteer, name)) not in shown
    ]
    homes = "\n".join(
        f"| `odesteer.{name}` | [{home}]({home.split('.')[1]}.md) |"
        for name, home in sorted(odesteer._HOMES.items())
        if home.split(".")[1] in PACKAGES
    )
    own = "\n\n".join(f"::: {odesteer._HOMES[name]}.{name}" for name in top)
    pages["api/index.md"] = (
        "# Python\n\nNames are imported from `odesteer` itself, or from the package that documents"
        f" them.\n\n| name | documented in |\n|---|---|\n{homes}\n\n{own}\n"
    )
    return pages


def registered_page() -> str:
    """The page of the names by which commands and files mean classes."""
    from odesteer.artifact.serialization import FAMILIES, registry_of
    from odesteer.evaluation.judges import registry as judges
    from odesteer.evaluation.suites import registry as suites

    families = [(family, registry_of(family)) for family in FAMILIES]
    lines = [
        "# Names in commands and files",
        "",
        "What `--method`, `--judge`, `--param barrier=…` and files of settings call each class. A"
        " package of yours adds names by entry points ([write your own parts](../extending.md)).",
        "",
    ]
    for kind, registry in [*families, ("judge", judges), ("suite", suites)]:
        lines += [f"## {kind.capitalize()}", "", "| name | class | |", "|---|---|---|"]
        for name in sorted(registry):
            cls = registry.get(name)
            summary = _cell((cls.__doc__ or "").strip().partition("\n\n")[0])
            lines.append(f"| `{name}` | `{cls.__name__}` | {summary} |")
        lines.append("")
    return "\n".join(lines)


def command_page() -> str:
    """The page of the commands, from their help, as typer writes it."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from odesteer.cli.app import app

    command = get_command(app)
    with command.make_context("odesteer", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="odesteer")
    return "# Commands\n\n" + text.lstrip().replace("# `odesteer`", "## `odesteer`", 1)


def http_page() -> str:
    """The page of the HTTP interface, from the schema that the server itself publishes."""
    from odesteer.serving.api.app import create_app
    from odesteer.serving.settings import Settings

    schema = create_app(MagicMock(), Settings()).openapi()
    lines = [
        "# HTTP",
        "",
        "What `odesteer serve` answers. The same as a schema for tools: `/openapi.json`.",
        "",
    ]
    for path, operations in sorted(schema["paths"].items()):
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", operation.get("description", ""), ""]
            content = operation.get("requestBody", {}).get("content", {})
            lines += [f"Body: {_type(c['schema'])} (`{kind}`)." for kind, c in content.items()]
            lines += ["", "| status | answer |", "|---|---|"]
            lines += [
                f"| {status} | {_cell(answer.get('description', ''))} |"
                for status, answer in operation["responses"].items()
            ]
            lines.append("")
    lines += ["## Objects", ""]
    for name, described in sorted(schema["components"]["schemas"].items()):
        lines += [f"### {name}", "", described.get("description", ""), ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        required = described.get("required", ())
        for field, of in described.get("properties", {}).items():
            default = "required" if field in required else f"`{json.dumps(of.get('default'))}`"
            meaning = _cell(of.get("description", ""))
            lines.append(f"| `{field}` | {_type(of)} | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def pages() -> Iterator[tuple[str, str]]:
    """Every generated page: its path below ``docs/reference`` and its text."""
    yield from api_pages().items()
    yield "commands.md", command_page()
    yield "names.md", registered_page()
    yield "http.md", http_page()


def write(folder: Path) -> int:
    """Write the pages into a folder; the number of pages."""
    count = 0
    for path, text in pages():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        count += 1
    return count


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    return str(schema.get("type", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _docstring(module: Any) -> str:
    return inspect.cleandoc(module.__doc__ or "")


if __name__ == "__main__":
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            written = write(ROOT / "docs" / "reference")
        except Exception:
            sys.stderr.write(errors.getvalue())
            raise
    print(f"wrote {written} pages below docs/reference")
