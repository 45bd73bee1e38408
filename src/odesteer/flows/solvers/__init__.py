"""Solvers of initial value problems: what a step is, explicit ones, and certified steps."""

from odesteer.flows.solvers.base import EmbeddedPair, FixedStep, Solver
from odesteer.flows.solvers.certified import Certified
from odesteer.flows.solvers.explicit import (
    RK4,
    BogackiShampine,
    Euler,
    Geodesic,
    Midpoint,
    ThreeEighths,
)

__all__ = [
    "RK4",
    "BogackiShampine",
    "Certified",
    "EmbeddedPair",
    "Euler",
    "FixedStep",
    "Geodesic",
    "Midpoint",
    "Solver",
    "ThreeEighths",
]
