"""Steerers for the three worlds of the bundled model, fitted at start-up."""

from collections.abc import Iterator

from odesteer.artifact import Steerer
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel
from odesteer.terrarium import worlds

BUNDLED = "bundled"

_N_PAIRS = 150


def fitted_worlds(lm: SteeredModel, seed: int = 0) -> Iterator[tuple[str, Steerer]]:
    """Fit a steerer for each world of the bundled model; yields its name and the steerer.

    All of them take a few seconds.
    """
    for world in worlds():
        pairs = world.contrast("fit", seed, _N_PAIRS)
        steerer = lm.fit(ODESteer(), pairs, world.layer, position=world.position, seed=seed)
        yield world.name, steerer
