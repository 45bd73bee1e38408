"""Plot of the demo: rates of the judges, and paths of activations."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from odesteer.cli.commands.demo.world_trial import ARMS, WorldTrial
from odesteer.errors import MissingDependencyError
from odesteer.files import write_file
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel

_COLOURS = {"unsteered": "#9a9a9a", "steered": "#2166ac", "opposite": "#b2182b"}
_N_PATHS = 24


def save_plot(path: Path, lm: SteeredModel, trials: Sequence[WorldTrial], seed: int) -> None:
    """Bars of the rates over the paths of activations, a column for each world, as PNG.

    Raises `MissingDependencyError` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "plots need matplotlib; install it with pip install 'odesteer[plot]'."
        ) from None
    figure = Figure(figsize=(4.6 * len(trials), 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(trials), squeeze=False)
    for column, trial in enumerate(trials):
        _bars(axes[0, column], trial)
        _paths(axes[1, column], lm, trial, seed)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    write_file(path, image.getvalue())


def _bars(ax: Any, trial: WorldTrial) -> None:
    """Bars: for each arm the shares of valid completions of either pole."""
    positive, negative = trial.world.poles
    for k, name in enumerate(ARMS):
        rates = trial.arms[name].rates
        ax.bar(k - 0.2, rates.joint, 0.4, color=_COLOURS["steered"])
        ax.bar(k + 0.2, rates.negative_joint, 0.4, color=_COLOURS["opposite"])
    ax.bar(0, 0, color=_COLOURS["steered"], label=f"{positive} and valid")
    ax.bar(0, 0, color=_COLOURS["opposite"], label=f"{negative} and valid")
    ax.set_xticks(
        range(len(ARMS)), ["unsteered", f"level {trial.level:g}", f"level {trial.opposite:g}"]
    )
    ax.set_ylim(0, 1.2)  # room for the legend
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_title(f"{trial.world.name}: share of {len(trial.prompts)} completions")
    ax.legend(loc="upper center", ncols=2, fontsize="small", frameon=False)


def _paths(ax: Any, lm: SteeredModel, trial: WorldTrial, seed: int) -> None:
    """Trajectories of test activations over the level sets of the barrier."""
    from odesteer.plot import plot_trajectories

    world, method = trial.world, cast(ODESteer, trial.steerer.method)
    negative = world.contrast("test", seed, _N_PATHS).negative
    states = lm.capture(negative, world.layer, world.position, seed=seed).states[world.layer]
    path = method.trajectory(states[:_N_PATHS], level=trial.level)
    plot_trajectories(path, method.barrier, ax=ax)
    ax.set_title(f"{world.poles[1]} test activations to level {trial.level:g}")
