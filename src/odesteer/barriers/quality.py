"""How good a log-density ratio is on examples it was not fitted to."""

import numpy as np
import torch
from torch import Tensor


def held_out_quality(h: Tensor, y: Tensor) -> dict[str, float]:
    """AUC, log loss (nats) and expected calibration error of values h `[n]` for labels y `[n]`.

    The two classes count alike, since h is the ratio of densities without the class frequencies.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    values = h.double().cpu().numpy()
    labels = y.cpu().numpy().astype(int)
    weight = np.where(labels == 1, 0.5 / (labels == 1).mean(), 0.5 / (labels == 0).mean())
    p = torch.sigmoid(h.double()).cpu().numpy()
    return {
        "auc": float(roc_auc_score(labels, values)),
        "log_loss": float(log_loss(labels, p, sample_weight=weight, labels=[0, 1])),
        "calibration_error": _calibration_error(p, labels, weight),
    }


def _calibration_error(
    p: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    labels: "np.ndarray[tuple[int], np.dtype[np.int_]]",
    weight: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    n_bins: int = 10,
) -> float:
    """Expected calibration error over equal-width bins (Guo et al., ICML 2017)."""
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    mass = np.bincount(bins, weight, n_bins)
    gap = np.bincount(bins, weight * (labels - p), n_bins)
    return float(np.abs(gap)[mass > 0].sum() / mass.sum())
