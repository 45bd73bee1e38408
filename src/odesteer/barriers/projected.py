"""A barrier of a linear map of activations: principal components, or another model's space."""

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.linear import LinearBarrier
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.untrusted import is_integer


class ProjectedBarrier(Barrier):
    """h(a) = g(Ra + c), with g a barrier on `[r]` and R a matrix `[r, d]`.

    `fit` takes the first r principal components of the examples for R, and fits g to them. `of`
    takes a fitted g and a given map: of activations of one model to those of another, of which g is
    a barrier (`odesteer transfer`). The gradient Rᵀ∇g lies in the span of the rows of R. A value
    takes O(r d), and that of g.

    Parameters:
        barrier: g; after `fit`, the fitted one.
        rank: r; fewer where the examples do not vary in as many directions.
        fitting: see `Fitting`.

    Learned: ``barrier_`` g, ``matrix_`` R `[r, d]`, ``offset_`` c `[r]`.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ("rank",)

    barrier = FittedPart[Barrier]()
    barrier_: Barrier
    matrix_: Tensor
    offset_: Tensor

    def __init__(
        self, barrier: Barrier = LinearBarrier(), rank: int = 16, fitting: Fitting = Fitting()
    ) -> None:
        self.barrier = barrier
        self.rank = rank
        self.fitting = fitting

    @classmethod
    def of(cls, barrier: Barrier, matrix: Tensor, offset: Tensor) -> "ProjectedBarrier":
        """h(a) = g(Ra + c) of a fitted g, R `[r, d]` and c `[r]`; levels are those of g.

        Raises `InvalidInputError` where the shapes do not fit together or a value is not finite.
        """
        barrier.check_fitted()
        r = barrier.width_
        if matrix.ndim != 2 or len(matrix) != r or tuple(offset.shape) != (r,):
            raise InvalidInputError(
                f"a map into the width {r} of the barrier is a matrix [{r}, d] with an offset"
                f" [{r}], not {tuple(matrix.shape)} with {tuple(offset.shape)}."
            )
        if not bool(torch.isfinite(matrix).all() & torch.isfinite(offset).all()):
            raise InvalidInputError("the map holds NaN or infinities.")
        made = cls(barrier.clone(), rank=r, fitting=Fitting(folds=0))
        made.barrier_, made.matrix_, made.offset_ = barrier, matrix, offset
        made.width_, made.held_out_ = matrix.shape[1], None
        made.calibration_, made.upper_, made.lower_ = 1.0, barrier.upper_, barrier.lower_
        return made

    def _fit(self, contrast: Contrast) -> None:
        if not is_integer(self.rank, 1):
            raise InvalidInputError(f"rank must be a whole number ≥ 1, not {self.rank!r}.")
        if not isinstance(self.barrier, Barrier):
            raise InvalidInputError(f"the barrier inside is {self.barrier!r:.80}, no barrier.")
        examples = contrast.examples.double()
        mean = examples.mean(dim=0)
        _, lengths, axes = torch.linalg.svd(examples - mean, full_matrices=False)
        kept = int((lengths > 1e-6 * lengths[0]).sum())
        axes = axes[: min(self.rank, kept)]
        # The sign of a principal component is arbitrary: the largest coordinate is positive.
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        axes = axes * largest.sign()
        self.matrix_ = axes.to(contrast.positive)
        self.offset_ = -(axes @ mean).to(contrast.positive)
        sides = [self.mapped(a) for a in (contrast.positive, contrast.negative)]
        self.barrier_ = self.barrier.clone().fit(sides[0], sides[1], contrast.group_pair)

    def _without_folds(self) -> Self:
        return self.with_params(folds=0, barrier=self.barrier._without_folds())

    def _adopt_calibration(self, fitted: Barrier) -> None:
        assert isinstance(fitted, ProjectedBarrier)
        self.barrier._adopt_calibration(fitted.barrier)

    def mapped(self, a: Tensor) -> Tensor:
        """Ra + c, `[..., d] -> [..., r]`."""
        return a @ self.matrix_.to(a).T + self.offset_.to(a)

    def value(self, a: Tensor) -> Tensor:
        return self.barrier.value(self.mapped(self._input(a)))

    def gradient(self, a: Tensor) -> Tensor:
        return self.value_and_gradient(a)[1]

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = self._input(a)
        value, gradient = self.barrier.value_and_gradient(self.mapped(a))
        return value, gradient @ self.matrix_.to(gradient)

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        self._input(a)
        return None
