"""Explicit solvers: Euler, midpoint, Runge-Kutta of order 4, Bogacki-Shampine, geodesic Euler."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.flows.field import VectorField
from odesteer.flows.solvers.base import EmbeddedPair, FixedStep


class Euler(FixedStep):
    """Explicit Euler, order 1: the paper's solver (10 steps). One step is activation addition."""

    order = 1
    stages = 1

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        return a + dt * slope


class Midpoint(FixedStep):
    """The explicit midpoint rule (modified Euler, Runge 1895), order 2.

    Hairer, Nørsett and Wanner, section II.1.
    """

    order = 2
    stages = 2

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        return a + dt * field(a + (dt / 2) * slope)


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit method for autonomous equations.

    Attributes:
        a: rows of coefficients of the second and later stages.
        b: weights of the stages.
        b_error: weights minus those of the embedded method, if there is one.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] | None = None


def stage_slopes(
    tableau: Tableau, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor
) -> list[Tensor]:
    """Field values at the stages; the first is ``slope``."""
    values = [slope]
    for row in tableau.a:
        values.append(field(a + dt * weighted_sum(row, values)))
    return values


def weighted_sum(weights: tuple[float, ...], values: list[Tensor]) -> Tensor:
    """Σ wᵢvᵢ."""
    total = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        if weight != 0:
            total = total + weight * value
    return total


class RK4(FixedStep):
    """The classical Runge-Kutta method, order 4 (Kutta 1901)."""

    order = 4
    stages = 4
    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 2,), (0, 1 / 2), (0, 0, 1)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    )

    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        slopes = stage_slopes(self.tableau, field, a, dt, slope)
        return a + dt * weighted_sum(self.tableau.b, slopes)


class ThreeEighths(RK4):
    """Kutta's 3/8-rule, order 4; some libraries call it ``rk4``.

    Hairer, Nørsett and Wanner, table II.1.2.
    """

    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 3,), (-1 / 3, 1), (1, -1, 1)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    )


class BogackiShampine(EmbeddedPair):
    """The 3(2) pair of Bogacki and Shampine (Appl. Math. Lett. 1989), MATLAB's ``ode23``.

    Order 3, advanced with the third-order solution; four evaluations a step.
    """

    order = 3
    stages = 4
    tableau: ClassVar[Tableau] = Tableau(
        a=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0),
        b_error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    )

    def step_with_error(
        self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        slopes = stage_slopes(self.tableau, field, a, dt, slope)
        error = weighted_sum(self.tableau.b_error or (), slopes)
        return a + dt * weighted_sum(self.tableau.b, slopes), dt * error


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
