"""Barrier, the base class of all: fit, value and gradient, levels, held-out figures."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.contrast import Contrast, FitArguments, Groups, check_contrast
from odesteer.barriers.held_out import (
    HeldOutValues,
    auc_error,
    check_folds,
    count_groups,
    group_folds,
    held_out_quality,
    recalibration_slope,
)
from odesteer.errors import InvalidInputError, WeakSignalWarning
from odesteer.estimator import Estimator


@dataclass(frozen=True)
class Restriction:
    """A gradient flow of a barrier on R^d, restricted to an invariant subspace R^k.

    Attributes:
        barrier: the same barrier in the coordinates of the subspace.
        state: `[..., k]`, the activations in these coordinates; lengths are kept.
        lift: `[..., k] -> [..., d]`, the activation that a moved state stands for.
    """

    barrier: "Barrier"
    state: Tensor
    lift: Callable[[Tensor], Tensor]


class Barrier(Estimator, ABC):
    """A differentiable function h: R^d -> R that is positive on the desirable region.

    Fitted barriers estimate the log-density ratio h(a) = log p₊(a)/p₋(a) in nats
    (arXiv 2602.17560, section 4): the logit of a classifier to which both classes count alike,
    whatever their numbers, so that h = 0 stays where it is when a class has fewer examples.

    Regularisation shrinks such a logit. Where there are folds, h is multiplied by the slope with
    which held-out values predict the labels best, so that on new examples it is in nats.

    Every barrier has the parameter ``fitting``, cross-validation folds and the seed (`Fitting`),
    whose ``folds`` and ``seed`` are also attributes and arguments of its own.

    Learned: ``width_`` (d); ``held_out_`` (AUC, log loss, calibration error on held-out folds, or
    None); ``calibration_``, the factor that is in h, 1 without folds; ``upper_`` and ``lower_``,
    the 90 % quantile of h over positives and the 10 % quantile over negatives (held out where
    there are folds), which give `threshold` its unit.
    """

    family: ClassVar[str] = "barrier"
    fits_jointly: ClassVar[bool] = False  # whether layers share what `fit_layers` learns

    folds: int
    seed: int

    width_: int
    held_out_: dict[str, float] | None
    calibration_: float
    upper_: float
    lower_: float

    def fit(self, positive: Tensor, negative: Tensor, groups: Groups | None = None) -> Self:
        """Fit to activations `[n₊, d]` and `[n₋, d]`.

        ``groups`` is a pair of sequences, of lengths n₊ and n₋, of hashable labels; examples of
        one group are never split between folds. Raises `InvalidInputError` for sets that are
        empty, differ in width, hold NaN or infinities, or do not vary. Warns with a
        `WeakSignalWarning` where held-out examples are told apart no better than so many groups
        would be by chance, and where there are folds but too few groups for them.
        """
        contrast = check_contrast(positive, negative, groups)
        check_folds(self.folds)
        self.forget()
        try:
            self._learn(contrast)
        except BaseException:
            self.forget()  # leave nothing half fitted
            raise
        return self

    def fit_layers(self, sides: Sequence[FitArguments]) -> list[Self]:
        """Fitted copies, one for each layer, see `FitArguments`. Raises as `fit` does."""
        return [self.clone().fit(*side) for side in sides]

    def _learn(self, contrast: Contrast) -> None:
        self.width_ = contrast.width
        held_out = self._fit(contrast)
        self._simplify()
        self._count_levels(contrast, held_out or self._held_out_values(contrast))

    def _count_levels(self, contrast: Contrast, held_out: HeldOutValues | None) -> None:
        """Calibrate h, and take its quality and the quantiles of levels, on held-out values."""
        y = contrast.labels
        self.calibration_, self.held_out_ = 1.0, None
        if held_out is None:
            h = self.value(contrast.examples).cpu()
            self._warn_of_no_folds(contrast)
        else:
            values, rated = held_out
            h, y = values[rated], y[rated]
            if self._is_log_ratio():
                self._rescale(recalibration_slope(h, y))
                h = self.calibration_ * h
            self.held_out_ = held_out_quality(h, y)
            self._warn_of_chance(self.held_out_["auc"], *count_groups(contrast.groups[rated], y))
        self.upper_ = float(h[y == 1].double().quantile(0.9))
        self.lower_ = float(h[y == 0].double().quantile(0.1))

    @abstractmethod
    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        """Learn from checked activations; may return what `_held_out_values` returns."""

    def _warn_of_no_folds(self, contrast: Contrast) -> None:
        folds = group_folds(contrast.groups, contrast.labels, self.folds, self.seed)
        if self.folds and next(folds, None) is None:
            n_groups = len(torch.unique(contrast.groups))
            warnings.warn(
                f"{type(self).__name__} has no held-out figures:"
                f" {len(contrast.labels)} examples in {n_groups} groups are too few for"
                " cross-validation, so levels count in quantiles over the examples that it was"
                " fitted to. Use more groups.",
                WeakSignalWarning,
                stacklevel=5,
            )

    def _warn_of_chance(self, auc: float, n_positive: int, n_negative: int) -> None:
        """Warn where an AUC of so many groups of each class is near one half."""
        error = auc_error(auc, n_positive, n_negative)
        if auc - 2 * error < 0.5:
            warnings.warn(
                f"the held-out AUC of {type(self).__name__} is {auc:.2f} ± {error:.2f}, near"
                " chance: it barely tells the classes apart, and levels are near noise. Use"
                " another layer or position, or more examples.",
                WeakSignalWarning,
                stacklevel=5,
            )

    def _is_log_ratio(self) -> bool:
        """Whether h estimates a log-density ratio, so that held-out examples can give its scale."""
        return False

    def _rescale(self, factor: float) -> None:
        """Multiply h by ``factor``, where its kind of function can be."""

    def _adopt_calibration(self, fitted: "Barrier") -> None:
        """Take over the scale of the same barrier, fitted to all examples."""
        self._rescale(getattr(fitted, "calibration_", 1.0))

    def _simplify(self) -> None:
        """Bring what was fitted into the form in which it is used and stored."""

    @abstractmethod
    def value(self, a: Tensor) -> Tensor:
        """h(a): `[..., d] -> [...]`, nats, in at least float32."""

    @abstractmethod
    def gradient(self, a: Tensor) -> Tensor:
        """∇h(a): `[..., d] -> [..., d]`, nats per activation unit, in at least float32."""

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, for barriers where they share work."""
        return self.value(a), self.gradient(a)

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        """The flow through ``a`` in a small invariant subspace, where there is one.

        With ``radial`` the subspace also holds ``a``, and coordinates are as long as activations;
        for steps that depend on ‖a‖.
        """
        return None

    def threshold(self, level: float | Tensor) -> float | Tensor:
        """The value of h, in nats, that a level stands for.

        Level 0 is the decision boundary h = 0, level 1 the 90 % quantile of h over positives,
        level -1 the 10 % quantile over negatives; in between and beyond, multiples of these.
        Raises as `check_level` does for numbers and for tensors on the CPU; nobody waits for
        another device to look at a tensor there.
        """
        if isinstance(level, Tensor):
            if level.device.type == "cpu":
                self.check_level(level)
            return torch.where(level >= 0, level * self.upper_, -level * self.lower_)
        self.check_level(level)
        return level * self.upper_ if level >= 0 else -level * self.lower_

    def check_level(self, level: float | Tensor) -> None:
        """Raise `InvalidInputError` where a level, or one in a tensor of them, has no meaning.

        So it is where a quantile lies on the wrong side of 0, so that levels would point the
        wrong way.
        """
        self.check_fitted()
        least, most = _range(level)
        if math.isnan(self.upper_ + self.lower_):
            raise InvalidInputError(
                f"level {level} has no meaning: this barrier was given, not fitted, and without"
                " quantiles. Give it quantiles, or use T or strength."
            )
        if most > 0 >= self.upper_ or least < 0 <= self.lower_:
            side, h = ("positive", self.upper_) if most > 0 else ("negative", self.lower_)
            raise InvalidInputError(
                f"level {level} has no meaning: 90 % of the {side} examples have h"
                f" {'below' if side == 'positive' else 'above'} {h:.3g}, on the wrong side of 0, so"
                " the barrier does not tell the classes apart. Fit on more or other data or"
                " another layer, or use T or strength."
            )

    def _held_out_values(self, contrast: Contrast) -> HeldOutValues | None:
        """h of each example under a fit that has not seen its group; None without folds.

        Returns the values `[n]` float64 and a mask `[n]` of the examples that were rated.
        """
        values = torch.zeros(len(contrast.labels), dtype=torch.float64)
        rated = torch.zeros(len(contrast.labels), dtype=torch.bool)
        for mask in group_folds(contrast.groups, contrast.labels, self.folds, self.seed):
            fold = self._without_folds().fit(*contrast.split(~mask))
            fold._adopt_calibration(self)
            values[mask] = fold.value(contrast.examples[mask]).double().cpu()
            rated |= mask
        return (values, rated) if bool(rated.any()) else None

    def _without_folds(self) -> Self:
        """An unfitted copy that looks at nothing held out."""
        return self.with_params(folds=0)

    def _input(self, a: Tensor) -> Tensor:
        """``a`` in the type that the barrier computes in, after a check of its width."""
        self.check_fitted()
        if a.ndim < 1 or a.shape[-1] != self.width_:
            raise InvalidInputError(
                f"activations have shape {tuple(a.shape)}; this barrier was fitted on width"
                f" {self.width_}, so the last dimension must be {self.width_}."
            )
        return a if a.dtype in (torch.float32, torch.float64) else a.float()


def _range(level: float | Tensor) -> tuple[float, float]:
    if isinstance(level, Tensor):
        level = level.detach()
        return (float(level.min()), float(level.max())) if level.numel() else (0.0, 0.0)
    return level, level
