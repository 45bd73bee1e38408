"""Steps along great circles."""

import torch
from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import FixedStep


class Geodesic(FixedStep):
    """Geodesic Euler, order 1: keeps ‖a‖ exactly.

    The step a ← cos θ·a + sin θ·‖a‖·u with the unit tangent u along v and θ = Δt‖v_tan‖/‖a‖
    follows the great circle that explicit Euler leaves (the Lie-Euler method on the sphere;
    Hairer, Lubich and Wanner, Geometric Numerical Integration, section IV.8). Only the component
    of v tangent to the sphere acts; barriers of a/‖a‖ have no other.
    """

    order = 1
    stages = 1
    spherical = True

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        tiny = torch.finfo(a.dtype).tiny
        norm = a.norm(dim=-1, keepdim=True).clamp_min(tiny)
        unit = a / norm
        tangent = slope - (slope * unit).sum(-1, keepdim=True) * unit
        speed = tangent.norm(dim=-1, keepdim=True)
        angle = dt * speed / norm
        moved = torch.cos(angle) * unit + torch.sin(angle) * tangent / speed.clamp_min(tiny)
        state: Tensor = norm * torch.nn.functional.normalize(moved, dim=-1)
        return state
