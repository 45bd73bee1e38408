"""Saving and loading as functions."""

import os

from odesteer.artifact.steerer import Steerer
from odesteer.methods import Method


def save(steerer: Steerer | Method, path: str | os.PathLike[str]) -> None:
    """Write a steerer, or a bare fitted method, to one safetensors file. See `Steerer.save`."""
    (Steerer(steerer) if isinstance(steerer, Method) else steerer).save(path)


def load(path: str | os.PathLike[str]) -> Steerer:
    """The steerer in a file. See `Steerer.load`."""
    return Steerer.load(path)
