"""Steerers: saving, loading, origin and sharing."""

from odesteer.artifact.provenance import Provenance
from odesteer.artifact.saving import load, save
from odesteer.artifact.site import POSITIONS, Site
from odesteer.artifact.steerer import Steerer

__all__ = ["POSITIONS", "Provenance", "Site", "Steerer", "load", "save"]
