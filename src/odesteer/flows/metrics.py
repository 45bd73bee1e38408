"""Metrics in which a flow ascends a barrier most steeply."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import pooled_covariance
from odesteer.errors import InvalidInputError
from odesteer.estimator import Estimator
from odesteer.untrusted import is_number


class Metric(Estimator, ABC):
    """A positive semidefinite matrix G; the flow follows G∇h, for which ∇h·G∇h ≥ 0.

    So the set {h ≥ 0} is forward invariant in every metric (Nagumo's theorem).
    """

    family: ClassVar[str] = "metric"

    @abstractmethod
    def fit(self, positive: Tensor, negative: Tensor) -> Self:
        """Learn G from activations `[n₊, d]` and `[n₋, d]`."""

    @abstractmethod
    def apply(self, g: Tensor) -> Tensor:
        """G g, `[..., d] -> [..., d]`."""


class Euclidean(Metric):
    """G = I, the paper's metric."""

    @property
    def is_fitted(self) -> bool:
        return True

    def fit(self, positive: Tensor, negative: Tensor) -> Self:
        return self

    def apply(self, g: Tensor) -> Tensor:
        return g


class Covariance(Metric):
    """G = Σ, the shrunk pooled within-class covariance: moves along directions the data take.

    Parameters:
        shrinkage: between 0 and 1; None takes the optimum of Ledoit and Wolf (2004).

    Learned: ``matrix_`` Σ `[d, d]`.
    """

    matrix_: Tensor

    def __init__(self, shrinkage: float | None = None) -> None:
        self.shrinkage = shrinkage

    def fit(self, positive: Tensor, negative: Tensor) -> Self:
        self.forget()
        # A plain tensor without a graph, in whatever gradient mode.
        with torch.inference_mode(False), torch.no_grad():
            self.matrix_ = pooled_covariance(positive, negative, self.shrinkage)
        return self

    def apply(self, g: Tensor) -> Tensor:
        self.check_fitted()
        return g @ self.matrix_.to(g)


class NullSpace(Metric):
    """G = the projector on the directions that positive examples use least.

    The flow then leaves what activations like the positives are made of alone (AlphaSteer, arXiv
    2506.07022, uses this space). Where all activations are benign in most directions, steering in
    the rest costs little.

    Parameters:
        share: the share of directions that are kept, above 0 and at most 1: those with the
            smallest energy, eigenvalues of AᵀA over the positives A.

    Learned: ``axes_``, orthonormal, `[d, k]`.
    """

    axes_: Tensor

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def fit(self, positive: Tensor, negative: Tensor) -> Self:
        self.forget()
        # A plain tensor without a graph, in whatever gradient mode.
        with torch.inference_mode(False), torch.no_grad():
            self.axes_ = least_energy_directions(positive, self.share).to(positive.dtype)
        return self

    def apply(self, g: Tensor) -> Tensor:
        self.check_fitted()
        axes = self.axes_.to(g)
        return (g @ axes) @ axes.T


def least_energy_directions(a: Tensor, share: float) -> Tensor:
    """The eigenvectors of AᵀA with the smallest eigenvalues, `[n, d] -> [d, k]` in float64.

    k is ``share`` of d, rounded, and at least 1. Raises `InvalidInputError` unless 0 < share ≤ 1.
    """
    if not is_number(share) or not 0 < share <= 1:
        raise InvalidInputError(
            f"the share of directions must be above 0 and at most 1, not {share!r}."
        )
    wide = a.double()
    k = max(1, round(share * a.shape[1]))
    vectors: Tensor = torch.linalg.eigh(wide.T @ wide).eigenvectors
    return vectors[:, :k].contiguous()


class MatrixMetric(Metric):
    """Any symmetric positive semidefinite G that the user gives.

    Parameters:
        matrix: `[d, d]`.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def is_fitted(self) -> bool:
        return True

    def fit(self, positive: Tensor, negative: Tensor) -> Self:
        """Check G: raises `InvalidInputError` unless it is `[d, d]`, symmetric and ≥ 0."""
        G, d = self.matrix, positive.shape[1]
        if G.shape != (d, d):
            raise InvalidInputError(f"the metric has shape {tuple(G.shape)}, not ({d}, {d}).")
        if not bool(torch.isfinite(G).all()):
            raise InvalidInputError("the metric has values that are not finite.")
        if not torch.allclose(G, G.T, rtol=1e-5, atol=1e-7 * float(G.abs().max())):
            raise InvalidInputError("the metric is not symmetric; pass (G + G.T)/2.")
        least, most = (float(v) for v in torch.linalg.eigvalsh(G.double())[[0, -1]])
        if least < -1e-6 * max(most, 0.0) or most <= 0:
            raise InvalidInputError(
                f"the metric has eigenvalues from {least:.3g} to {most:.3g};"
                " it must be positive semidefinite and not zero."
            )
        return self

    def apply(self, g: Tensor) -> Tensor:
        return g @ self.matrix.to(g)
