"""Cross-validation: folds that never split a group, quality of held-out values."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


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


def auc_error(auc: float, n_positive: int, n_negative: int) -> float:
    """The standard error of an AUC (Hanley and McNeil, Radiology 1982)."""
    both_positive, both_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (n_positive - 1) * (both_positive - auc**2)
    variance += (n_negative - 1) * (both_negative - auc**2)
    return math.sqrt(max(variance, 0.0) / (n_positive * n_negative))


def count_groups(groups: Tensor, y: Tensor) -> tuple[int, int]:
    """How many different groups `[n]` the examples of each class have, labels y `[n]`.

    Examples of one group, such as the tokens of a text, are no independent ones.
    """
    positive = y.cpu() == 1
    return len(torch.unique(groups[positive])), len(torch.unique(groups[~positive]))


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


def recalibration_slope(h: Tensor, y: Tensor) -> float:
    """The α for which αh + β predicts labels y `[n]` best, from held-out values h `[n]`.

    By log loss with both classes counting alike, and with Platt's targets (n₊ + 1)/(n₊ + 2) and
    1/(n₋ + 2) for labels, so that it is finite where h separates the classes. 1 where α is not
    positive, since such values say nothing about the labels.
    """
    h, y = h.double().cpu(), y.double().cpu()
    n_positive, n_negative = float(y.sum()), float((1 - y).sum())
    unit = float(h.std())
    if not (unit > 0 and n_positive and n_negative):
        return 1.0
    target = torch.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    weight = torch.where(y == 1, 0.5 / n_positive, 0.5 / n_negative)
    x = torch.stack([h / unit, torch.ones_like(h)], dim=1)
    theta = torch.zeros(2, dtype=torch.float64)

    def loss(theta: Tensor) -> float:
        f = x @ theta
        return float((weight * (torch.nn.functional.softplus(f) - target * f)).sum())

    for _ in range(100):
        p = torch.sigmoid(x @ theta)
        slope = x.T @ (weight * (p - target))
        hessian = (x.T * (weight * p * (1 - p))) @ x + 1e-12 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(hessian, slope)
        size, current = 1.0, loss(theta)
        while size > 1e-6 and loss(theta - size * step) > current:
            size /= 2
        theta = theta - size * step
        if float((size * step).abs().max()) < 1e-9:
            break
    alpha = float(theta[0]) / unit
    return alpha if alpha > 0 and math.isfinite(alpha) else 1.0


def check_folds(n_folds: int) -> None:
    """Raise `InvalidInputError` unless ``n_folds`` is 0 or an integer of at least 2."""
    if not is_integer(n_folds, 0) or n_folds == 1:
        raise InvalidInputError(f"folds must be 0 (none) or an integer ≥ 2, not {n_folds!r}.")


# Values `[n]` of h under fits that have not seen the group of an example, and which have one `[n]`.
HeldOutValues = tuple[Tensor, Tensor]


def choose_regularisation(
    C: float | Sequence[float],
    y: Tensor,
    held_out_values: Callable[[float], HeldOutValues | None],
) -> tuple[float, HeldOutValues | None]:
    """The C of several with the least log loss on held-out groups, and the values of h there.

    Both classes of the labels ``y`` `[n]` count alike, and values count as recalibrated. One
    number is taken as it is. Raises `InvalidInputError` where there is nothing to choose from, or
    nothing to choose by.
    """
    if isinstance(C, Sequence) and not C:
        raise InvalidInputError("C is an empty sequence; give a number or several.")
    grid = [float(value) for value in C] if isinstance(C, Sequence) else [float(C)]
    found = [held_out_values(value) for value in grid]
    if len(grid) == 1:
        return grid[0], found[0]
    losses = []
    for held_out in found:
        if held_out is None:
            raise InvalidInputError(
                f"C={tuple(grid)} is to be chosen by cross-validation, but the {len(y)} examples"
                " are too few or too few groups; give one number."
            )
        values, rated = held_out
        h, label = values[rated], y[rated]
        losses.append(_balanced_loss(recalibration_slope(h, label) * h, label))
    best = losses.index(min(losses))
    return grid[best], found[best]


def _balanced_loss(h: Tensor, y: Tensor) -> float:
    loss = torch.nn.functional.softplus(h) - y * h
    return float(loss[y == 1].mean() + loss[y == 0].mean())


def group_folds(groups: Tensor, y: Tensor, n_folds: int, seed: int) -> Iterator[Tensor]:
    """Boolean masks `[n]` of the held-out examples of each fold.

    Groups are shuffled by ``seed`` and dealt in turn, first those of positives only, then of
    negatives only, then mixed ones, so that every fold has about its share of each class. Yields
    nothing if some training part would have fewer than two examples of a class.
    """
    unique, index = torch.unique(groups.cpu(), return_inverse=True)
    label = y.cpu().bool()
    has_positive = torch.zeros(len(unique), dtype=torch.bool).index_fill_(0, index[label], True)
    has_negative = torch.zeros(len(unique), dtype=torch.bool).index_fill_(0, index[~label], True)
    kind = has_positive.int() + 2 * has_negative.int()
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    order = shuffled[np.argsort(kind.numpy()[shuffled], kind="stable")]
    n_folds = min(n_folds, len(unique))
    fold_of_group = np.empty(len(unique), dtype=np.int64)
    fold_of_group[order] = np.arange(len(unique)) % max(n_folds, 1)
    fold = torch.from_numpy(fold_of_group)[index]
    masks = [fold == k for k in range(n_folds)]
    enough = all(min(int(label[~mask].sum()), int((~label[~mask]).sum())) >= 2 for mask in masks)
    if n_folds >= 2 and enough:
        yield from masks
