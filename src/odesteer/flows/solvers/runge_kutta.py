"""Explicit Runge-Kutta steps from a tableau."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.flows.field import VectorField


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


def stages(
    tableau: Tableau, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor
) -> list[Tensor]:
    """Field values at the stages; the first is ``slope``."""
    values = [slope]
    for row in tableau.a:
        values.append(field(a + dt * combine(row, values)))
    return values


def combine(weights: tuple[float, ...], values: list[Tensor]) -> Tensor:
    """Σ wᵢvᵢ."""
    total = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        if weight != 0:
            total = total + weight * value
    return total
