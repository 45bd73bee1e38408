"""The path of an activation under a flow, in the plane that shows it, over the level sets of h."""

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
    """One path among the activations of a text; coordinates and T in activation units, h in nats.

    Attributes:
        x, y: `[RESOLUTION]` each, the grid.
        level_sets: `[RESOLUTION, RESOLUTION]`, rows along y: h on the plane.
        path: `[n, 2]`, from start to end.
        times: `[n]`, arc length travelled.
        values: `[n]`, h along the path.
        starts: `[m, 2]`, the other activations, projected; paths end at ``ends``.
        ends: `[m, 2]`.
        threshold: the h that the path was to reach; None where it goes a fixed way.
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


def trajectory_plot(method: Method, a: Tensor, chosen: int, amount: Amount) -> TrajectoryPlot:
    """How ``method`` moves row ``chosen`` of the activations ``a``, `[m, d]`, of a text.

    The plane goes through that row and its end, so that the contours are exact at both; it is
    spanned by the way between them (where nothing moves, by the gradient of h), turned so that h
    rises to the right, and by the leading spread of all rows. Raises `InvalidInputError` for a
    method without a barrier and for amounts beyond the range of numbers.
    """
    barrier = getattr(method, "barrier", None)
    if barrier is None:
        raise InvalidInputError(
            f"{type(method).__name__} has no barrier, so there are no level sets to show; choose"
            " a steerer that climbs one, such as ODESteer."
        )
    a = a.double()
    solution = method.solve(a, amount)
    states, times = _path(method, a[chosen], amount)
    _check_finite(states, solution.state, amount=amount)
    way, uphill = states[-1] - states[0], barrier.gradient(states[0])
    if not bool(way.any()):
        way = uphill
    plane = _plane(a, chosen, way if float(way @ uphill) >= 0 else -way)
    paths = plane.project(states)
    starts, ends = plane.project(a), plane.project(solution.state)
    low, high = _window(paths, starts, float(states[0].norm()))
    x, y = (
        torch.linspace(float(low[k]), float(high[k]), RESOLUTION, dtype=a.dtype) for k in range(2)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    others = torch.arange(len(a)) != chosen
    threshold = reached = None
    if amount.quantity == "level":
        threshold = float(barrier.threshold(amount.value))
        reached = solution.reached is None or bool(solution.reached[chosen])
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
    """States `[n, d]` and times `[n]`; of methods that follow no flow, the start and the end."""
    if hasattr(method, "trajectory"):
        path = method.trajectory(a, **{amount.quantity: amount.value})
        return path.states, path.times
    solution = method.solve(a, amount)
    return torch.stack([a, solution.state]), torch.stack([0 * solution.time, solution.time])


def _plane(a: Tensor, chosen: int, way: Tensor) -> Plane:
    first = normalize(way, dim=0)
    spread = a - a.mean(dim=0)
    if len(a) < 3:  # too few to have a spread: upwards the norm grows
        spread = a[chosen][None]
    spread = spread - (spread @ first)[:, None] * first
    second = torch.linalg.svd(spread, full_matrices=False).Vh[0]
    second = normalize(second - (second @ first) * first, dim=0)
    second = second if float(a[chosen] @ second) <= 0 else -second
    return Plane(a[chosen], torch.stack([first, second]))


def _window(path: Tensor, starts: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Corners of a square around the path, raised towards the other starts where they are far.

    It is as wide as ``norm``, that of the activation, so that paths can be compared by eye.
    """
    low, high = path.amin(0), path.amax(0)
    half = max(0.65 * float((high - low).amax()), 0.5 * norm)
    middle = (low + high) / 2
    middle[1] += (starts[:, 1].median() - middle[1]).clamp(-0.6 * half, 0.6 * half)
    return middle - half, middle + half
