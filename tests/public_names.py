"""Lists the public names of odesteer: what users, scripts and clients rely on.

``python tests/public_names.py`` writes them to ``public_names.json``, which the tests compare them
with. Write it anew only to add a name, or to drop one on purpose, with a line in CHANGELOG.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")


def python_names() -> list[str]:
    """Attributes of the package."""
    import odesteer

    return sorted(odesteer.__all__)


def entry_points() -> dict[str, Any]:
    """Entry points that the package has, and groups that it reads."""
    own = sorted(f"{entry.group}: {entry.name}" for entry in distribution("odesteer").entry_points)
    groups = sorted({group for _, registry in _registries() if (group := registry._group)})
    return {"own": own, "groups read": groups}


def registered_names() -> dict[str, list[str]]:
    """Names in each registry, without those of installed plugins."""
    return {kind: _own_names(registry) for kind, registry in _registries()}


def commands() -> dict[str, dict[str, list[str]]]:
    """Arguments and options of each command."""
    import typer

    from odesteer.cli.app import app

    group: Any = typer.main.get_command(app)
    found = {"": group, **group.commands}
    return {
        name: {
            "arguments": [p.name for p in command.params if p.param_type_name == "argument"],
            "options": sorted(
                option
                for p in command.params
                if p.param_type_name == "option"
                for option in (*p.opts, *p.secondary_opts)
            ),
        }
        for name, command in sorted(found.items())
    }


def http() -> dict[str, Any]:
    """Paths of the server with their methods, and fields of the bodies of requests."""
    from unittest.mock import MagicMock

    from odesteer.serving.api.app import create_app
    from odesteer.serving.settings import Settings

    app = create_app(MagicMock(), Settings())
    schema = app.openapi()
    fields: dict[str, list[str]] = {}
    pending = [
        content["schema"]["$ref"]
        for path in schema["paths"].values()
        for operation in path.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    ]
    while pending:
        name = pending.pop().rpartition("/")[2]
        if name in fields:
            continue
        described = schema["components"]["schemas"][name]
        fields[name] = sorted(described.get("properties", {}))
        pending += _references(described)
    paths = {
        path: sorted(method.upper() for method in operations)
        for path, operations in sorted(schema["paths"].items())
    }
    # Schemas are named after private classes, so a set of fields stands for each.
    return {"paths": paths, "fields": sorted(fields.values())}


SECTIONS: dict[str, Callable[[], Any]] = {
    "python": python_names,
    "entry points": entry_points,
    "registries": registered_names,
    "commands": commands,
    "http": http,
}


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [found for item in schema for found in _references(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if "$ref" in schema else []
    return own + _references(list(schema.values()))


def _registries() -> list[tuple[str, Any]]:
    from odesteer.artifact.serialization import FAMILIES, registry_of
    from odesteer.evaluation.judges import registry as judges
    from odesteer.evaluation.suites import registry as suites

    families = [(family, registry_of(family)) for family in FAMILIES]
    return [*families, ("judge", judges), ("suite", suites)]


def _own_names(registry: Any) -> list[str]:
    """The names in a registry whose classes are in the package, not in a plugin."""
    return sorted(name for name in registry if registry._paths[name].startswith("odesteer."))


if __name__ == "__main__":
    names = {section: listed() for section, listed in SECTIONS.items()}
    FILE.write_text(json.dumps(names, indent=1) + "\n")
