"""Inputs and outputs of the published implementation on two small synthetic data sets.

Recorded by running it: activations of both classes, queries, hash tables, coefficients, and what
every method made of the queries, as float32 arrays in ``published/``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent / "published"
RUNS = ("polynomial_degree2_d48", "polynomial_degree3_d32")


@cache
def published_run(name: str) -> dict[str, torch.Tensor]:
    """All arrays of a run, by name; not to be changed."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


every_published_run = pytest.mark.parametrize(
    "recorded", [pytest.param(published_run(name), id=name) for name in RUNS]
)
