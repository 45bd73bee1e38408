"""Steering methods, one a file, on one contract."""

from odesteer.methods.amount import QUANTITIES, Amount
from odesteer.methods.base import Method
from odesteer.methods.caa import CAA
from odesteer.methods.odesteer import ODESteer
from odesteer.methods.spherical import Spherical
from odesteer.registry import Registry

registry: Registry[Method] = Registry(
    "method",
    {
        "odesteer": "odesteer.methods.odesteer:ODESteer",
        "caa": "odesteer.methods.caa:CAA",
        "spherical": "odesteer.methods.spherical:Spherical",
    },
    entry_point_group="odesteer.methods",
)

__all__ = ["CAA", "QUANTITIES", "Amount", "Method", "ODESteer", "Spherical", "registry"]
