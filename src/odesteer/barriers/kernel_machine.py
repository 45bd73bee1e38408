"""Kernel logistic regression on a fixed set of examples, fitted to any part of them.

Both classes count alike, see `logistic`.

Both machines have `fit(rows, y, C)`, `predict(fitted, rows)` and `expand(fitted)`, so that
cross-validation and the final fit share one Gram matrix or one set of features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.barriers.logistic import fit_dual, fit_primal, second_moment

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Fitted:
    """Weights of a machine: over examples (exact) or features (Nyström), and the intercept."""

    weights: Tensor
    intercept: float
    rows: Tensor | None


class ExactMachine:
    """The Gram matrix of all examples `[n, n]`, float64."""

    def __init__(self, kernel: Kernel, x: Tensor) -> None:
        self.points = x
        double = x.double()
        self._gram = kernel(double, double)

    def fit(self, rows: Tensor | None, y: Tensor, C: float) -> Fitted:
        """Fit to the examples of the boolean mask ``rows`` (all when None) with labels ``y``."""
        gram = self._gram if rows is None else self._gram[rows][:, rows]
        weights, intercept = fit_dual(gram, y, C, balanced=True)
        return Fitted(weights, intercept, rows)

    def predict(self, fitted: Fitted, rows: Tensor) -> Tensor:
        """The logit at the examples of the boolean mask ``rows``."""
        gram = self._gram[rows]
        gram = gram if fitted.rows is None else gram[:, fitted.rows]
        return gram @ fitted.weights + fitted.intercept

    def expand(self, fitted: Fitted) -> tuple[Tensor, float]:
        """The logit of a fit to all examples as weights over `points`, and the intercept."""
        return fitted.weights, fitted.intercept


class NystromMachine:
    """Features K_nm K_mm^{-1/2} of the examples from m landmarks, `[n, m]` float32.

    Landmarks are drawn with probability proportional to approximate ridge leverage scores
    (Alaoui and Mahoney, NeurIPS 2015; scores from a uniform pilot sample of the same size, as in
    Musco and Musco, NeurIPS 2017).
    """

    def __init__(self, kernel: Kernel, x: Tensor, n_landmarks: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        n = len(x)
        m = min(n_landmarks, n)
        pilot = x[torch.randperm(n, generator=generator)[:m].to(x.device)]
        scores = _leverage_scores(kernel, x, pilot)
        chosen = torch.multinomial(scores.cpu(), m, generator=generator).to(x.device)
        self.points = x[chosen]
        self._root = _inverse_root(kernel, self.points)
        self._features = torch.cat(
            [
                (kernel(block.double(), self.points.double()) @ self._root).float()
                for block in _blocks(x)
            ]
        )
        self._moment = second_moment(self._features)

    def fit(self, rows: Tensor | None, y: Tensor, C: float) -> Fitted:
        """Fit to the examples of the boolean mask ``rows`` (all when None) with labels ``y``."""
        features = self._features if rows is None else self._features[rows]
        weights, intercept = fit_primal(features, y, C, self._moment, balanced=True)
        return Fitted(weights, intercept, rows)

    def predict(self, fitted: Fitted, rows: Tensor) -> Tensor:
        """The logit at the examples of the boolean mask ``rows``."""
        weights = fitted.weights.to(self._features)
        return (self._features[rows] @ weights).double() + fitted.intercept

    def expand(self, fitted: Fitted) -> tuple[Tensor, float]:
        """The logit of a fit as weights over the landmarks, and the intercept."""
        return self._root @ fitted.weights, fitted.intercept


_BLOCK = 4096


def _blocks(x: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(x), _BLOCK):
        yield x[start : start + _BLOCK]


def _inverse_root(kernel: Kernel, points: Tensor) -> Tensor:
    """K_mm^{-1/2} in float64, with the directions that rounding swamps left out."""
    values, vectors = torch.linalg.eigh(kernel(points.double(), points.double()))
    kept = values > values[-1] * len(points) * 1e-12
    root: Tensor = vectors[:, kept] / values[kept].sqrt()
    return root


def _leverage_scores(kernel: Kernel, x: Tensor, pilot: Tensor) -> Tensor:
    """Approximate ridge leverage scores, with the ridge at the mean of the pilot's tail."""
    pilot = pilot.double()
    gram = kernel(pilot, pilot)
    values = torch.linalg.eigvalsh(gram)
    ridge = values[: len(values) // 2].clamp_min(0).mean() + 1e-9 * values[-1]
    factor = torch.linalg.cholesky(
        gram + ridge * torch.eye(len(pilot), dtype=gram.dtype, device=gram.device)
    )
    scores = []
    for block in _blocks(x):
        block = block.double()
        cross = kernel(block, pilot)
        own = torch.vmap(lambda row: kernel(row[None], row[None])[0, 0])(block)
        explained = torch.linalg.solve_triangular(factor, cross.T, upper=False).square().sum(0)
        scores.append((own - explained).clamp_min(0) + ridge * 1e-3)
    return torch.cat(scores)
