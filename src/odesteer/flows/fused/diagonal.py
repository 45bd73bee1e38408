"""Quadratic barriers in their eigenbasis: the curvature, slope and offset of compiled loops."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.barriers import Barrier, Centred, Raw, UnitSphere
from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.quadratic import QuadraticFunction


@dataclass(frozen=True)
class DiagonalFlow:
    """The unit-speed ascent of h(y) = Σᵢ λᵢxᵢ² + 2 Σᵢ mᵢxᵢ + c.

    Attributes:
        curvature: λ `[k]`.
        slope: m `[k]`.
        offset: c, nats.
        radial: whether x = y/‖y‖; else x = y.
    """

    curvature: Tensor
    slope: Tensor
    offset: float
    radial: bool


def diagonal_flow(barrier: Barrier) -> DiagonalFlow | None:
    """The flow of a barrier that is diagonal in its coordinates, else None."""
    if not isinstance(barrier, ComposedBarrier):
        return None
    function, inputs = barrier.function_, barrier.inputs
    if not isinstance(function, QuadraticFunction) or function.basis_ is not None:
        return None
    curvature, slope = function.curvature_.double(), function.slope_.double()
    offset = function.offset_
    if isinstance(inputs, UnitSphere):
        return DiagonalFlow(curvature, slope, offset, radial=True)
    if isinstance(inputs, Raw):
        return DiagonalFlow(curvature, slope, offset, radial=False)
    if not isinstance(inputs, Centred):
        return None
    # x = (y - μ)/s: expand the square.
    centre = inputs.mean_.to(slope) / inputs.scale_
    constant = (curvature * centre.square()).sum() - 2 * (slope * centre).sum()
    return DiagonalFlow(
        curvature / inputs.scale_**2,
        (slope - curvature * centre) / inputs.scale_,
        offset + float(constant.detach()),
        radial=False,
    )


def as_float64(values: Tensor) -> Tensor:
    """Contiguous float64 on the CPU, as the compiled loop reads it."""
    return values.detach().to(dtype=torch.float64).contiguous()
