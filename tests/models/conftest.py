"""A tiny model of each architecture, and steerers that fit them."""

from collections.abc import Iterator

import pytest
import torch

import tiny_models
from odesteer.models import SteeredModel


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(tiny_models.ARCHITECTURES))
def any_lm(request: pytest.FixtureRequest) -> SteeredModel:
    """Each architecture in turn."""
    return SteeredModel(tiny_models.ARCHITECTURES[request.param](), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    """A Llama."""
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
