"""Fixtures: two workers on a Ray of the tests, and the model that they load."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import tiny_models
from odesteer import SteeredModel
from odesteer.cluster import Cluster, ClusterModel

_BY_RAY = "ignore::DeprecationWarning:ray"
"""Ray Data warns of its own settings while it starts."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs Ray where there is none."""
    for item in items:
        if "cluster" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker(pytest.mark.filterwarnings(_BY_RAY))
        if find_spec("ray") is None:
            item.add_marker(pytest.mark.skip(reason="needs Ray; run make test-ray"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers import the jobs of the tests.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with Cluster(workers=2) as running:
            yield running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_models.llama().save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def alone(folder: Path) -> SteeredModel:
    """The model in this process."""
    return SteeredModel.from_pretrained(folder)


@pytest.fixture
def together(cluster: Cluster, folder: Path) -> ClusterModel:
    """The same model on the workers."""
    return ClusterModel.open(cluster, folder)
