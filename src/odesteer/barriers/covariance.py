"""Within-class covariance of activations."""

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError


def pooled_covariance(positive: Tensor, negative: Tensor, shrinkage: float | None) -> Tensor:
    """Pooled within-class covariance `[d, d]` of sets `[n₊, d]` and `[n₋, d]`, shrunk.

    (1 - s)Σ̂ + s·tr(Σ̂)/d·I with ``shrinkage`` s in [0, 1]; None takes the s of Ledoit and Wolf
    (J. Multivariate Analysis 2004), which minimises the expected squared error. Computed in
    float64, returned in the type of ``positive``.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InvalidInputError(f"shrinkage must be between 0 and 1 or None, not {shrinkage}.")
    residuals = torch.cat([a - a.mean(dim=0) for a in (positive, negative)]).double()
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    target = covariance.diagonal().mean()
    s = _ledoit_wolf(residuals, covariance, target) if shrinkage is None else shrinkage
    shrunk = (1 - s) * covariance + s * target * torch.eye(d, dtype=torch.float64).to(residuals)
    return shrunk.to(positive.dtype)


def _ledoit_wolf(residuals: Tensor, covariance: Tensor, target: Tensor) -> float:
    n, d = residuals.shape
    distance = covariance.square().sum() - d * target**2
    fourth = residuals.square().sum(dim=1).square().sum() / n
    noise = (fourth - covariance.square().sum()) / n
    return float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0
