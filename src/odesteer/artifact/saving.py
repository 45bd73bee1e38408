"""Functions save, load and from_pretrained for steerers and sets."""

import os

from odesteer.artifact import hub
from odesteer.artifact.base import read
from odesteer.artifact.format import Content
from odesteer.artifact.limits import DEFAULT_LIMITS, FileLimits
from odesteer.artifact.steerer import Steerer
from odesteer.artifact.steerer_set import SteererSet
from odesteer.methods import Method


def save(steerer: Steerer | SteererSet | Method, path: str | os.PathLike[str]) -> None:
    """Write a steerer, a set of them, or a bare fitted method to one safetensors file.

    See `Steerer.save`.
    """
    (Steerer(steerer) if isinstance(steerer, Method) else steerer).save(path)


def load(
    path: str | os.PathLike[str], *, limits: FileLimits | None = DEFAULT_LIMITS
) -> Steerer | SteererSet:
    """Load the steerer or the set of steerers in a file. See `Steerer.load`."""
    return read(path, _restored, limits)


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    limits: FileLimits | None = DEFAULT_LIMITS,
) -> Steerer | SteererSet:
    """Load from a file, a folder, or a repository on the Hugging Face hub.

    See `Steerer.from_pretrained`.
    """
    return load(hub.find_file(source, revision=revision, token=token), limits=limits)


def _restored(content: Content) -> Steerer | SteererSet:
    return SteererSet.restored(content) if content.is_set else Steerer.restored(content)
