"""The data and the objective of ``odesteer tune``, from a file or from a world of the terrarium."""

import warnings
from typing import TYPE_CHECKING, Literal

from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.data import ContrastData
    from odesteer.models import SteeredModel
    from odesteer.terrarium import World
    from odesteer.tuning import Objective

Proxy = Literal["judge", "likelihood"]

_N_PAIRS = 300
_POOR_AUC = 0.7


def data_and_objective(
    lm: "SteeredModel",
    source: "ContrastData | World",
    proxy: Proxy,
    screen: Screen,
    *,
    n_items: int,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
) -> "tuple[ContrastData, Objective]":
    """The data to fit on, and the objective; warns if its judge is poor.

    A world has exact judges and texts of a fixed length; ``proxy``, ``max_new_tokens`` and
    ``batch_size`` are for data only.
    """
    from odesteer.data import ContrastData
    from odesteer.tuning import from_data, from_world

    if not isinstance(source, ContrastData):
        fit_data = source.contrast("fit", seed, _N_PAIRS)
        return fit_data, from_world(lm, source, n_items=n_items, seed=seed)
    fit_data, objective = from_data(
        lm,
        source,
        proxy,
        n_items=n_items,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
    )
    about = objective.about()
    screen.note(
        f"fitting on {fit_data!r}; selecting on {objective.n_items} prompts of other groups"
    )
    if "judge_auc" in about:
        auc = about["judge_auc"]
        screen.note(
            f"a judge learned from {about['judge_examples']} others: AUC {auc:.3f} on groups left"
            " out"
        )
        if auc < _POOR_AUC:
            warnings.warn(
                "the judge hardly tells the sides apart on groups that it has not seen (AUC"
                f" {auc:.2f}), so its choice means little; use more data, or --objective"
                " likelihood.",
                stacklevel=2,
            )
    return fit_data, objective
