"""Numbers of the trajectory plot: the path of an activation in a plane, and level sets of h."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, Method
from odesteer.plot import Plane

RESOLUTION = 56


@dataclass(frozen=True)
class TrajectoryPlot:
    """The plot of one path; coordinates and T in activation units, h in nats.

    Attributes:
        x, y: `[RESOLUTION]` each, the grid.
        level_sets: `[RESOLUTION, RESOLUTION]`, rows along y: h on the plane.
        path: `[n, 2]`, from start to end.
        times: `[n]`, arc length travelled.
        values: `[n]`, h along the path.
        starts: `[m, 2]`, the other activations, projected; paths end at ``ends``.
        ends: `[m, 2]`.
        threshold: the h that the path was to reach; None if the amount is not a level.
        reached: whether it did; None likewise.
    """

    x: Tensor
    y: Tensor
    level_sets: Tensor
    path: Tensor
    times: Tensor
    values: Tensor
    starts: Tensor
    ends: Tensor
    threshold: float | None
    reached: bool | None


def trajectory_plot(method: Method, a: Tensor, row: int, amount: Amount) -> TrajectoryPlot:
    """The plot of how ``method`` moves row ``row`` of the activations ``a``, `[m, d]`, of a text.

    The plane goes through the start and the end of that row, so the level sets are exact at both.
    Its first axis is the displacement (or, if nothing moves, the gradient of h), turned so that h
    rises to the right; its second is the leading principal direction of all rows. Raises
    `InvalidInputError` for a method without a barrier, and for amounts that overflow.
    """
    barrier = getattr(method, "barrier", None)
    if barrier is None:
        raise InvalidInputError(
            f"{type(method).__name__} has no barrier, so there are no level sets to show; choose"
            " a steerer that climbs one, such as ODESteer."
        )
    a = a.double()
    solution = method.solve(a, amount)
    states, times = _path(method, a[row], amount)
    _check_finite(states, solution.state, amount=amount)
    displacement, gradient = states[-1] - states[0], barrier.gradient(states[0])
    if not bool(displacement.any()):
        displacement = gradient
    rises = float(displacement @ gradient) >= 0
    plane = _plane(a, row, displacement if rises else -displacement)
    paths = plane.project(states)
    starts, ends = plane.project(a), plane.project(solution.state)
    low, high = _window(paths, starts, float(states[0].norm()))
    x, y = (
        torch.linspace(float(low[k]), float(high[k]), RESOLUTION, dtype=a.dtype) for k in range(2)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    others = torch.arange(len(a)) != row
    threshold = reached = None
    if amount.quantity == "level":
        threshold = float(barrier.threshold(amount.value))
        reached = solution.reached is None or bool(solution.reached[row])
    level_sets, values = barrier.value(plane.embed(grid)), barrier.value(states)
    _check_finite(level_sets, values, starts, ends, amount=amount)
    return TrajectoryPlot(
        *(x, y, level_sets, paths, times, values),
        *(starts[others], ends[others], threshold, reached),
    )


def _check_finite(*numbers: Tensor, amount: Amount) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
        raise InvalidInputError(f"{amount} leaves the range of numbers; choose a smaller amount.")


def _path(method: Any, a: Tensor, amount: Amount) -> tuple[Tensor, Tensor]:
    """States `[n, d]` and times `[n]`; for methods without a flow, the start and the end."""
    if hasattr(method, "trajectory"):
        path = method.trajectory(a, **{amount.quantity: amount.value})
        return path.states, path.times
    solution = method.solve(a, amount)
    return torch.stack([a, solution.state]), torch.stack([0 * solution.time, solution.time])


def _plane(a: Tensor, row: int, direction: Tensor) -> Plane:
    """The plane through row ``row``, along ``direction`` and the leading spread of the rows."""
    first = normalize(direction, dim=0)
    spread = a - a.mean(dim=0)
    if len(a) < 3:  # too few for a spread; the norm grows upwards instead
        spread = a[row][None]
    spread = spread - (spread @ first)[:, None] * first
    second = torch.linalg.svd(spread, full_matrices=False).Vh[0]
    second = normalize(second - (second @ first) * first, dim=0)
    second = second if float(a[row] @ second) <= 0 else -second
    return Plane(a[row], torch.stack([first, second]))


def _window(path: Tensor, starts: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Corners of a square around the path, shifted vertically towards the other starts.

    It is at least as wide as ``norm``, that of the activation, so that plots can be compared.
    """
    low, high = path.amin(0), path.amax(0)
    half = max(0.65 * float((high - low).amax()), 0.5 * norm)
    middle = (low + high) / 2
    middle[1] += (starts[:, 1].median() - middle[1]).clamp(-0.6 * half, 0.6 * half)
    return middle - half, middle + half
