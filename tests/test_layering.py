"""The order of the rooms: no upward import, no circles, no name twice, and a light import."""

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import odesteer

PACKAGE = Path(odesteer.__file__).parent

# A folder imports only itself, the folders before it, and the modules of the foundation.
FOUNDATION = ("errors", "estimator", "files", "registry", "untrusted", "version")
ROOMS = (
    "autoencoders",
    "barriers",
    "flows",
    "plot",
    "methods",
    "artifact",
    "interchange",
    "citations",
    "data",
    "models",
    "terrarium",
    "tuning",
    "evaluation",
    "concepts",
    "cluster",
    "vllm",
    "serving",
    "cli",
)
# Rooms that stand beside the others rather than on them.
NARROWER = {"data": (), "terrarium": ("data",), "vllm": ("methods", "artifact")}


# Folders inside a room that are layers too, lowest first.
LAYERS_WITHIN = {"models": ("architecture", "tokens", "capture", "steering", "generation")}


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imported(path: Path) -> set[str]:
    """Modules of odesteer that a file imports, at any depth of nesting, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module or "")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & MODULES.keys()


def _imports(path: Path) -> set[str]:
    """Rooms of odesteer that a file imports."""
    return {name.split(".")[1] for name in _imported(path) if "." in name}


def test_no_files_import_each_other() -> None:
    graph = {name: _imported(path) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail("import circle: " + " <- ".join(circle.args[1]))


def test_no_class_name_stands_for_two_things() -> None:
    defined = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(name)
    twice = {cls: names for cls, names in defined.items() if len(names) > 1}
    assert not twice


@pytest.mark.parametrize("room", LAYERS_WITHIN)
def test_no_folder_of_a_room_imports_upward(room: str) -> None:
    layers = LAYERS_WITHIN[room]
    for i, layer in enumerate(layers):
        for path in (PACKAGE / room / layer).rglob("*.py"):
            names = {name.removeprefix(f"odesteer.{room}.") for name in _imported(path)}
            inside = {name.split(".")[0] for name in names if not name.startswith("odesteer")}
            assert inside <= {*layers[: i + 1]}, f"{path.relative_to(PACKAGE)}: {sorted(inside)}"


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_upward(room: str) -> None:
    allowed = NARROWER.get(room, ROOMS[: ROOMS.index(room)])
    for path in (PACKAGE / room).rglob("*.py"):
        upward = _imports(path) - {room, *allowed, *FOUNDATION}
        assert not upward, f"{path.relative_to(PACKAGE)} imports {sorted(upward)}"


def test_the_foundation_stands_alone() -> None:
    for name in FOUNDATION:
        assert _imports(PACKAGE / f"{name}.py") <= set(FOUNDATION)


def test_the_architecture_page_names_every_folder() -> None:
    page = PACKAGE.parents[1] / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the package")
    found, parents = set(), [PACKAGE]
    for line in page.read_text().split("```")[1].splitlines():
        name = line.split()[0] if line.strip() else ""
        if name.endswith("/"):
            depth = (len(line) - len(line.lstrip())) // 2
            parents = [*parents[: depth + 1], parents[depth] / name]
            found.add(parents[-1])
    folders = {path.parent for path in MODULES.values()} - {PACKAGE}
    assert {str(f.relative_to(PACKAGE)) for f in found} == {
        str(f.relative_to(PACKAGE)) for f in folders
    }


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(run.stdout.split())


def test_importing_odesteer_loads_no_heavy_package() -> None:
    loaded = _modules_after("import odesteer")
    assert not loaded & {"torch", "transformers", "sklearn", "scipy", "matplotlib", "typer"}


def test_methods_need_only_torch() -> None:
    loaded = _modules_after("from odesteer import ODESteer, CAA, load_contrast, Steerer")
    assert "torch" in loaded
    assert not loaded & {"transformers", "sklearn", "scipy", "matplotlib", "datasets", "typer"}


def test_every_public_name_exists() -> None:
    for name in odesteer.__all__:
        assert getattr(odesteer, name) is not None
    assert odesteer.__all__ == sorted(odesteer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        odesteer.nothing  # noqa: B018


def test_the_version_is_the_package_version() -> None:
    import importlib.metadata

    assert importlib.metadata.version("odesteer") == odesteer.__version__
