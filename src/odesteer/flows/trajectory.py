"""Trajectories: every accepted state of a flow, with values and speeds of the barrier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.flows.field import GradientField, VectorField
from odesteer.flows.problem import ReachValue, Solution
from odesteer.flows.solve import solve_recorded
from odesteer.flows.solvers import Solver


@dataclass(frozen=True)
class Trajectory:
    """States along a flow, from start to end.

    Attributes:
        times: `[n + 1, ...]`, time travelled; arc length in activation units for unit fields.
        states: `[n + 1, ..., d]`.
        values: `[n + 1, ...]`, the barrier h in nats; None for fields without one.
        speeds: `[n + 1, ...]`, dh/dt in nats per activation unit; None likewise.
        solution: the end, and what happened on the way.
    """

    times: Tensor
    states: Tensor
    values: Tensor | None
    speeds: Tensor | None
    solution: Solution


def trajectory(
    field: VectorField,
    a: Tensor,
    T: float | Tensor,
    solver: Solver,
    *,
    until: ReachValue | None = None,
) -> Trajectory:
    """As `solve`, with every accepted state; takes memory for all of them."""
    record: list[tuple[Tensor, Tensor]] = []
    solution = solve_recorded(field, a, T, solver, until, record)
    times = torch.stack([time for time, _ in record])
    states = torch.stack([state for _, state in record])
    if not isinstance(field, GradientField):
        return Trajectory(times, states, None, None, solution)
    values, gradient = field.barrier.value_and_gradient(states)
    speeds = (gradient * field(states)).sum(-1)
    return Trajectory(times, states, values, speeds, solution)
