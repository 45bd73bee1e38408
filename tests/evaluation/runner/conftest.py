"""A tiny model, and the report of an undisturbed run on it."""

from pathlib import Path

import bench_case
import pytest

from odesteer import SteeredModel


@pytest.fixture(scope="session")
def lm() -> SteeredModel:
    return bench_case.lm()


@pytest.fixture(scope="session")
def undisturbed(lm: SteeredModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    bench_case.finish(lm, folder)
    return folder
