"""Solvers of initial value problems, one a file."""

from odesteer.flows.solvers.base import EmbeddedPair, FixedStep, Solver
from odesteer.flows.solvers.bogacki_shampine import BogackiShampine
from odesteer.flows.solvers.certified import Certified
from odesteer.flows.solvers.euler import Euler
from odesteer.flows.solvers.geodesic import Geodesic
from odesteer.flows.solvers.midpoint import Midpoint
from odesteer.flows.solvers.rk4 import RK4, ThreeEighths

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
