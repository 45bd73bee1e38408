"""Fixtures: models in vLLM's shape, their steerers, and environment variables."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import ENVIRONMENT
from equivalent_models import fit_for_cpu
from references import PHASES, Case, Reference, fit_steerers

from odesteer.models import SteeredModel
from odesteer.terrarium import model_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the many warnings of vLLM."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def steerers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the steerers of all models; `ODESTEER_STEERERS` for engines in this process."""
    return tmp_path_factory.mktemp("steerers")


@pytest.fixture(scope="session")
def cases(
    steerers: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Case]:
    """Models by name. Steerers of one do not fit the other."""
    sources = {"terrarium": (model_path(), 3)}
    shared = Path(__file__).resolve().parents[2].parent / "shared" / "models" / "stories260K-hf"
    if shared.is_dir():
        sources["stories"] = (shared, 2)
    made = {}
    for name, (source, layer) in sources.items():
        path = tmp_path_factory.mktemp(name)
        fit_for_cpu(Path(source), path)
        lm = SteeredModel.from_pretrained(str(source), device="cpu")
        fit_steerers(lm, layer, steerers, name)
        made[name] = Case(name, path, Reference(lm, steerers))
    everywhere = SteeredModel.from_pretrained(str(model_path()), device="cpu")
    fit_steerers(everywhere, 3, steerers, "everywhere", position="all")
    for name, position in PHASES.items():
        fit_steerers(everywhere, 3, steerers, name, position, names=("linear",))
    return made


@pytest.fixture(scope="session")
def environment(
    cases: dict[str, Case], steerers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment variables of vLLM, in this process and in others."""
    variables = {
        **ENVIRONMENT,
        "ODESTEER_STEERERS": str(steerers),
        "VLLM_CACHE_ROOT": str(tmp_path_factory.mktemp("cache")),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    yield variables
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def terrarium(cases: dict[str, Case], environment: dict[str, str]) -> Case:
    return cases["terrarium"]
