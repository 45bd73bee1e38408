"""The terrarium: a bundled miniature language model, its worlds of texts, and exact judges."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from odesteer.errors import InvalidInputError
from odesteer.terrarium.civility import CivilityWorld
from odesteer.terrarium.mood import MoodWorld
from odesteer.terrarium.truth import TruthWorld
from odesteer.terrarium.world import SPLITS, Split, Verdict, World

__all__ = [
    "SPLITS",
    "CivilityWorld",
    "MoodWorld",
    "Split",
    "TruthWorld",
    "Verdict",
    "World",
    "model_path",
    "world",
    "worlds",
]

_WORLDS: dict[str, World] = {w.name: w for w in (TruthWorld(), CivilityWorld(), MoodWorld())}


def worlds() -> tuple[World, ...]:
    """The three worlds, truth first."""
    return tuple(_WORLDS.values())


def world(name: str) -> World:
    """The world of that name."""
    if name not in _WORLDS:
        raise InvalidInputError(f"there is no world {name!r}; there are {', '.join(_WORLDS)}")
    return _WORLDS[name]


def model_path() -> Path:
    """The folder of the bundled model, for ``from_pretrained``."""
    # Installed packages are folders here, never zip files, so the resource is a real path.
    return Path(str(resources.files(__package__) / "odesteer-terrarium"))
