"""Plots of barriers and flows; needs the extra ``odesteer[plot]``."""

from odesteer.plot.level_sets import Plane, plot_trajectories

__all__ = ["Plane", "plot_trajectories"]
