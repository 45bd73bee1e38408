"""Fixtures: run a command in this process, a tiny model in a folder, steerers fitted on it."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import CommandResult, Run, save_model, save_pairs

from odesteer.cli import main


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command with these arguments in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODESTEER_DEBUG", raising=False)

    def _run(*words: object, stdin: str = "") -> CommandResult:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main([str(word) for word in words])
        return CommandResult(code, *capsys.readouterr())

    return _run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="session")
def steerer(model: str, pairs: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ODESteer at layer 2 of the tiny model."""
    path = tmp_path_factory.mktemp("steerers") / "sunny.safetensors"
    assert main(["fit", model, "--data", pairs, "--layer", "2", "-o", str(path)]) == 0
    return str(path)


@pytest.fixture(scope="session")
def caa(model: str, pairs: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CAA at layer 1 of the tiny model."""
    path = tmp_path_factory.mktemp("steerers") / "caa.safetensors"
    words = ["fit", model, "--data", pairs, "--layer", "1", "--method", "caa", "-o", str(path)]
    assert main(words) == 0
    return str(path)
