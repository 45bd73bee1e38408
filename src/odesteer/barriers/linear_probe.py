"""A standardised linear probe on the same folds: how good a fitted barrier could be."""

import math
from collections.abc import Mapping

from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import auc_error, count_groups, held_out_quality
from odesteer.barriers.inputs import Standardized
from odesteer.barriers.linear import LinearBarrier
from odesteer.errors import ConvergenceError, InvalidInputError

# An AUC below this is said to separate the classes barely.
_BARELY = 0.6
# A barrier this far behind the probe is said to be, where that is also two standard errors of the
# difference between independent figures; figures of the same examples differ by less.
_FAR = 0.03


def probe_figures(
    contrast: Contrast, auc: float | None, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Held-out AUC of logistic regression (C = 1) on standardised activations, and errors.

    ``linear_probe_auc`` and ``linear_probe_auc_error`` are of the probe on the folds that a barrier
    with these ``folds`` and ``seed`` has, ``auc_error`` of the barrier's own ``auc``. Errors are
    standard errors. Empty where there are no folds.
    """
    n_positive, n_negative = count_groups(contrast.groups, contrast.labels)
    figures = {} if auc is None else {"auc_error": auc_error(auc, n_positive, n_negative)}
    # The inputs divide by √d too, so that the same regularisation is d times the C.
    probe = LinearBarrier(float(contrast.width), Standardized(), Fitting(folds, seed))
    try:
        held_out = probe._held_out_values(contrast)
    except (ConvergenceError, InvalidInputError):
        held_out = None
    if held_out is not None:
        values, rated = held_out
        best = held_out_quality(values[rated], contrast.labels[rated])["auc"]
        figures["linear_probe_auc"] = best
        figures["linear_probe_auc_error"] = auc_error(best, n_positive, n_negative)
    return figures


def concerns(figures: Mapping[str, float]) -> list[str]:
    """What held-out figures say against a fit, a sentence each; empty where nothing does.

    ``figures`` are those of a barrier (``auc``) and of `probe_figures`, as provenance keeps them.
    """
    auc, error = figures.get("auc"), figures.get("auc_error", 0.0)
    if auc is None:
        return []
    best = figures.get("linear_probe_auc", auc)
    best_error = figures.get("linear_probe_auc_error", 0.0)
    advice = "; try another position or layer (--position, --layer)"
    found = []
    if auc < _BARELY or auc - 2 * error < 0.5:
        found.append(f"AUC {auc:.2f}: levels are near noise{advice}")
    if best - auc > max(_FAR, 2 * math.hypot(error, best_error)):
        found.append(
            f"AUC {auc:.2f} is far behind the {best:.2f} of a standardised linear probe: the"
            " barrier misses what the activations show; try Standardized inputs or another method"
        )
    return found
