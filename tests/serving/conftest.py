"""Fixtures: the bundled model, steerers for its worlds, and a server that has them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import WORLDS, Server, serving, steer_options

import odesteer
from odesteer import SteeredModel, Steerer
from odesteer.terrarium import model_path, world

N_PAIRS = 40


@pytest.fixture(scope="session")
def bundled() -> SteeredModel:
    return SteeredModel.from_pretrained(str(model_path()))


@pytest.fixture(scope="session")
def steerer_files(
    bundled: SteeredModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A steerer of each world in a file."""
    folder = tmp_path_factory.mktemp("steerers")
    files = {}
    for name in WORLDS:
        its = world(name)
        pairs = its.contrast("fit", 0, N_PAIRS)
        files[name] = folder / f"{name}.safetensors"
        bundled.fit(odesteer.ODESteer(), pairs, its.layer, position=its.position).save(files[name])
    return files


@pytest.fixture(scope="session")
def steerers(steerer_files: dict[str, Path]) -> dict[str, Steerer]:
    return {name: Steerer.load(file) for name, file in steerer_files.items()}


@pytest.fixture(scope="session")
def server(steerer_files: dict[str, Path]) -> Iterator[Server]:
    """A server shared by all tests here, which none may end."""
    with serving(*steer_options(steerer_files)) as server:
        yield server
