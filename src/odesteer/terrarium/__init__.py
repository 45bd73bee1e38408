"""The terrarium: a bundled miniature language model, its worlds of texts, and exact judges."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from odesteer.errors import InvalidInputError
from odesteer.terrarium.civility import CivilityWorld
from odesteer.terrarium.mood import MoodWorld
from odesteer.terrarium.selective_truth import SelectiveTruthWorld
from odesteer.terrarium.truth import TruthWorld
from odesteer.terrarium.turning_mood import TurningMoodWorld
from odesteer.terrarium.world import SPLITS, Split, Verdict, World

__all__ = [
    "SPLITS",
    "CivilityWorld",
    "MoodWorld",
    "SelectiveTruthWorld",
    "Split",
    "TruthWorld",
    "TurningMoodWorld",
    "Verdict",
    "World",
    "hard_world",
    "hard_worlds",
    "model_path",
    "world",
    "worlds",
]

_WORLDS: dict[str, World] = {w.name: w for w in (TruthWorld(), CivilityWorld(), MoodWorld())}

_HARD = {kind.name: kind for kind in (SelectiveTruthWorld, TurningMoodWorld)}


def worlds() -> tuple[World, ...]:
    """The three worlds, truth first."""
    return tuple(_WORLDS.values())


def world(name: str) -> World:
    """The world of that name."""
    if name not in _WORLDS:
        raise InvalidInputError(f"there is no world {name!r}; there are {', '.join(_WORLDS)}")
    return _WORLDS[name]


def hard_worlds(exceptions: float = 0.4, *, shifted: bool = False) -> tuple[World, ...]:
    """The worlds in which what is desired depends on the text so far; no line separates it.

    ``exceptions``, 0 to 0.5, is their dial of difficulty; ``shifted`` gives them other prompts than
    they are fitted on.
    """
    return tuple(kind(exceptions, shifted=shifted) for kind in _HARD.values())


@cache
def hard_world(name: str, exceptions: float = 0.4) -> World:
    """One of :func:`hard_worlds`."""
    if name not in _HARD:
        raise InvalidInputError(f"there is no hard world {name!r}; there are {', '.join(_HARD)}")
    return _HARD[name](exceptions)


def model_path() -> Path:
    """The folder of the bundled model, for ``from_pretrained``."""
    # Installed packages are folders here, never zip files, so the resource is a real path.
    return Path(str(resources.files(__package__) / "odesteer-terrarium"))
