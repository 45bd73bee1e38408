"""Steerers: saving, loading, origin and sharing."""

from odesteer.artifact.asking import Asked, check_name, read_asked
from odesteer.artifact.gate import POOLS, Gate
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.saving import from_pretrained, load, save
from odesteer.artifact.site import PARTS, POSITIONS, Site
from odesteer.artifact.steerer import Steerer
from odesteer.artifact.steerer_set import SteererSet

__all__ = [
    "PARTS",
    "POOLS",
    "POSITIONS",
    "Asked",
    "Gate",
    "Provenance",
    "Site",
    "Steerer",
    "SteererSet",
    "check_name",
    "from_pretrained",
    "load",
    "read_asked",
    "save",
]
