"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scripts.llms import MissingLLMError, folder

# Tiny tensors: more threads only wait for each other.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and data sets beside the project; tests that need it skip without."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("no ../shared folder with models and data sets beside the project")
    return folder


def _llm(name: str) -> Path:
    try:
        return folder(name)
    except MissingLLMError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct; tests that need it skip without, with the command."""
    return _llm("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """The folder of Gemma 3 270M, likewise."""
    return _llm("gemma3")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def no_graphs_of_others() -> Iterator[None]:
    """`torch.compile` begins with none, and leaves none."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
