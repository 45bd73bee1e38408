"""Plots of trajectories over level sets."""

import pytest
import torch

from odesteer.barriers import LinearBarrier, Raw
from odesteer.errors import InvalidInputError
from odesteer.flows import Euler, GradientField, trajectory
from odesteer.plot import Plane, plot_trajectories

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def _flow(T: float):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(40, 6, generator=generator) + 1.0
    negative = torch.randn(40, 6, generator=generator) - 1.0
    barrier = LinearBarrier(inputs=Raw(), folds=0).fit(positive, negative)
    return barrier, trajectory(GradientField(barrier), negative[:5], T, Euler(4))


def test_plane_keeps_distances_along_the_flow() -> None:
    _, path = _flow(3.0)
    plane = Plane.of(path)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    flat = plane.project(path.states)
    # A linear barrier moves everything by T along the first axis, and not at all across it.
    torch.testing.assert_close(
        flat[-1] - flat[0], torch.tensor([[3.0, 0.0]]).double().expand(5, 2), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(plane.project(plane.embed(flat)), flat)


def test_plot_shows_every_path_and_the_boundary() -> None:
    barrier, path = _flow(4.0)
    axes = plot_trajectories(path, barrier)
    assert len(axes.lines) == 5
    assert "nats" in axes.figure.axes[1].get_ylabel()
    matplotlib.pyplot.close(axes.figure)


def test_nothing_to_plot_is_an_error() -> None:
    _, path = _flow(0.0)
    with pytest.raises(InvalidInputError, match="no activation moves"):
        Plane.of(path)
