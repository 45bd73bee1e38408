"""Trajectories over the level sets of a barrier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from odesteer.barriers import Barrier
from odesteer.errors import InvalidInputError, MissingDependencyError
from odesteer.flows import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Plane:
    """A plane in activation space.

    Attributes:
        origin: `[d]`.
        axes: `[2, d]`, orthonormal.
    """

    origin: Tensor
    axes: Tensor

    @classmethod
    def of(cls, trajectory: Trajectory) -> Plane:
        """The plane that shows a trajectory best.

        The first axis is the leading direction of the displacements, the second the leading
        principal component of the starts orthogonal to it; the origin is the mean start.
        Raises `InvalidInputError` if nothing moves.
        """
        states = trajectory.states.flatten(1, -2).double()
        start, displacement = states[0], states[-1] - states[0]
        if not bool((displacement != 0).any()):
            raise InvalidInputError("no activation moves along this trajectory; nothing to plot.")
        first = torch.linalg.svd(displacement, full_matrices=False).Vh[0]
        first = first if float((displacement @ first).sum()) >= 0 else -first
        spread = start - start.mean(dim=0)
        if len(start) < 3:  # too few starts to span a plane: use the bend of the paths
            spread = (states - states[:1]).flatten(0, 1)
        spread = spread - (spread @ first)[:, None] * first
        second = torch.linalg.svd(spread, full_matrices=False).Vh[0]
        second = torch.nn.functional.normalize(second - (second @ first) * first, dim=0)
        return cls(start.mean(dim=0), torch.stack([first, second]))

    def project(self, a: Tensor) -> Tensor:
        """Coordinates in the plane, `[..., d] -> [..., 2]`."""
        return (a.to(self.origin) - self.origin) @ self.axes.T

    def embed(self, coordinates: Tensor) -> Tensor:
        """The activations at coordinates, `[..., 2] -> [..., d]`."""
        return self.origin + coordinates @ self.axes


def plot_trajectories(
    trajectory: Trajectory,
    barrier: Barrier,
    *,
    ax: Axes | None = None,
    plane: Plane | None = None,
    n_levels: int = 12,
    resolution: int = 80,
) -> Axes:
    """Paths of activations, projected on a plane, over the values of h on that plane.

    The contours are those of h on the plane itself, in nats, the bold one being h = 0;
    paths run above or below the plane, so they need not cross contours at their own values.
    Returns the axes.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib; install it with pip install 'odesteer[plot]'."
        ) from None
    plane = Plane.of(trajectory) if plane is None else plane
    axes: Any = plt.subplots(figsize=(6, 5))[1] if ax is None else ax
    paths = plane.project(trajectory.states).flatten(1, -2)
    low, high = paths.flatten(0, 1).amin(0), paths.flatten(0, 1).amax(0)
    margin = 0.15 * (high - low).clamp_min(1e-6 * float(paths.abs().max()) + 1e-12)
    grid_x, grid_y = (
        torch.linspace(float(low[k] - margin[k]), float(high[k] + margin[k]), resolution).double()
        for k in range(2)
    )
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)
    h = barrier.value(plane.embed(grid))
    filled = axes.contourf(grid_x, grid_y, h, levels=n_levels, cmap="RdBu", alpha=0.6)
    if float(h.min()) < 0 < float(h.max()):
        axes.contour(grid_x, grid_y, h, levels=[0.0], colors="black", linewidths=1.5)
    for path in paths.unbind(dim=1):
        axes.plot(path[:, 0], path[:, 1], color="black", linewidth=0.8, alpha=0.7)
    axes.scatter(paths[0, :, 0], paths[0, :, 1], s=14, color="black", label="start", zorder=3)
    axes.scatter(
        paths[-1, :, 0],
        paths[-1, :, 1],
        s=18,
        color="white",
        edgecolor="black",
        label="end",
        zorder=3,
    )
    axes.set_xlabel("leading displacement (activation units)")
    axes.set_ylabel("leading spread of the starts (activation units)")
    axes.figure.colorbar(filled, ax=axes, label="barrier h (nats)")
    axes.legend(loc="best")
    return axes  # type: ignore[no-any-return]
