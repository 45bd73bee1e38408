"""Fitted steerers and files of them."""

from pathlib import Path

import fitted_methods
import pytest
from fitted_methods import WIDTH, Collector, clouds

import odesteer.methods
from odesteer.artifact import Provenance, Site, Steerer, save
from odesteer.methods import CAA, Method, ODESteer
from odesteer.registry import Registry


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    return Provenance(
        model_id="org/some-model",
        model_revision="0123abc",
        model_width=WIDTH,
        n_layers=4,
        capture_position="last",
        data_digest="00" * 32,
        n_positive=30,
        n_negative=25,
        seed=0,
        held_out={"log_loss": 0.5, "auc": 0.875},
    )


@pytest.fixture(scope="session")
def steerer(provenance: Provenance) -> Steerer:
    return Steerer(ODESteer().fit(*clouds()), Site(2, "generated"), provenance)


@pytest.fixture
def saved(steerer: Steerer, tmp_path: Path) -> Path:
    path = tmp_path / "steerer.safetensors"
    steerer.save(path)
    return path


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    """A fitted method that only these tests have registered."""
    registry: Registry[Method] = Registry(
        "method",
        {
            "odesteer": "odesteer.methods.odesteer:ODESteer",
            "caa": "odesteer.methods.constant:CAA",
            "collector": f"{fitted_methods.__name__}:Collector",
        },
    )
    monkeypatch.setattr(odesteer.methods, "registry", registry)
    method = Collector(option=("a", 1, None)).fit(*clouds())
    assert isinstance(method, Collector)
    return method


@pytest.fixture(scope="session")
def caa() -> Method:
    return CAA().fit(*clouds())


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("original") / "caa.safetensors"
    save(CAA().fit(*clouds()), path)
    return path.read_bytes()
