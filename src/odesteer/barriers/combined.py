"""One barrier made of several."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.contrast import Contrast, Groups
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import HeldOutValues
from odesteer.barriers.linear import LinearBarrier
from odesteer.barriers.polynomial import PolynomialBarrier
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.untrusted import is_number


class CombinedBarrier(Barrier):
    """h = c(w₁h₁, …, w_k h_k) for barriers h_i on the same activations.

    `fit` fits every part to the same examples; parts that are fitted already, to other examples,
    come in by `of`, or as a `FrozenBarrier`. Levels count in quantiles of h itself.
    """

    barriers = FittedPart[tuple[Barrier, ...]]()
    barriers_: tuple[Barrier, ...]

    def __init__(
        self,
        barriers: tuple[Barrier, ...],
        weights: tuple[float, ...] | None = None,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.barriers = barriers
        self.weights = weights
        self.fitting = fitting

    @classmethod
    def of(
        cls,
        *barriers: Barrier,
        positive: Tensor,
        negative: Tensor,
        groups: Groups | None = None,
        **parameters: Any,
    ) -> Self:
        """The combination of fitted barriers, which stay as they are.

        ``positive`` `[n₊, d]` and ``negative`` `[n₋, d]` are only there to measure the quantiles
        that levels count in: examples that are good in every respect, and examples that are not.
        """
        frozen = tuple(FrozenBarrier(barrier) for barrier in barriers)
        return cls(frozen, **parameters).fit(positive, negative, groups)

    @abstractmethod
    def _combine(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """c(x) `[...]` and ∂c/∂x_i `[k, ...]` from x = (w₁h₁, …, w_k h_k), `[k, ...]`."""

    def _fit(self, contrast: Contrast) -> None:
        self._check()
        arguments = contrast.positive, contrast.negative, contrast.group_pair
        self.barriers_ = tuple(barrier.clone().fit(*arguments) for barrier in self.barriers)

    def _check(self) -> None:
        name = type(self).__name__
        barriers, weights = self.barriers, self.weights
        if not isinstance(barriers, (list, tuple)) or len(barriers) == 0:
            raise InvalidInputError(
                f"{name} combines several barriers, as in {name}((LinearBarrier(),"
                f" PolynomialBarrier())), not {barriers!r:.80}."
            )
        for i, barrier in enumerate(barriers):
            if not isinstance(barrier, Barrier):
                raise InvalidInputError(f"barrier {i} of {name} is {barrier!r:.80}, no barrier.")
        if weights is None:
            return
        if not isinstance(weights, (list, tuple)) or len(weights) != len(barriers):
            raise InvalidInputError(
                f"{name} has {len(barriers)} barriers and the weights {weights!r:.80}; give a"
                " positive number to each."
            )
        for i, weight in enumerate(weights):
            if not is_number(weight) or weight <= 0:
                raise InvalidInputError(
                    f"weight {i} of {name} is {weight!r}; a weight is a positive number."
                )

    def _held_out_values(self, contrast: Contrast) -> HeldOutValues | None:
        return None if _holds_frozen(self) else super()._held_out_values(contrast)

    def _adopt_calibration(self, fitted: Barrier) -> None:
        assert isinstance(fitted, CombinedBarrier)
        for part, whole in zip(self.barriers, fitted.barriers, strict=True):
            part._adopt_calibration(whole)

    def _without_folds(self) -> Self:
        # The parts would measure quantiles of their own in every fold, and nobody reads them.
        parts = tuple(barrier._without_folds() for barrier in self.barriers)
        return self.with_params(folds=0, barriers=parts)

    def value(self, a: Tensor) -> Tensor:
        a = self._input(a)
        values = torch.stack([barrier.value(a) for barrier in self.barriers])
        return self._combine(self._weights(values) * values)[0]

    def gradient(self, a: Tensor) -> Tensor:
        return self.value_and_gradient(a)[1]

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = self._input(a)
        parts = [barrier.value_and_gradient(a) for barrier in self.barriers]
        values = torch.stack([value for value, _ in parts])
        weights = self._weights(values)
        value, shares = self._combine(weights * values)
        gradient = torch.zeros_like(a)
        for share, (_, slope) in zip(weights * shares, parts, strict=True):
            gradient = gradient + share[..., None] * slope
        return value, gradient

    def parts_and_gradients(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """w_i h_i(a) `[k, ...]` and their gradients `[k, ..., d]`."""
        a = self._input(a)
        parts = [barrier.value_and_gradient(a) for barrier in self.barriers]
        values = torch.stack([value for value, _ in parts])
        gradients = torch.stack([gradient for _, gradient in parts])
        weights = self._weights(values)
        return weights * values, weights[..., None] * gradients

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        self._input(a)
        return None

    def _weights(self, values: Tensor) -> Tensor:
        """The weights as `[k, 1, …]`, to multiply `[k, ...]` with."""
        weights = self.weights or (1.0,) * len(self.barriers)
        return values.new_tensor(weights).reshape(-1, *[1] * (values.ndim - 1))


class ProductBarrier(CombinedBarrier):
    """h = w₁h₁ + … + w_k h_k: the log of the product of density ratios, each to a power w_i.

    With weights of 1 it is the log-density ratio of "all of them" for attributes that are
    independent of each other on either side; one attribute in plenty makes up for another.

    Parameters:
        barriers: the parts h_i; after `fit`, the fitted ones.
        weights: w_i, positive; None for 1 each.
        fitting: see `Fitting`.
    """

    def __init__(
        self,
        barriers: tuple[Barrier, ...] = (LinearBarrier(), PolynomialBarrier()),
        weights: tuple[float, ...] | None = None,
        fitting: Fitting = Fitting(),
    ) -> None:
        super().__init__(barriers, weights, fitting)

    def _combine(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values.sum(dim=0), torch.ones_like(values)


class MinimumBarrier(CombinedBarrier):
    """h = min(w₁h₁, …, w_k h_k): its safe set {h ≥ 0} is the intersection of the parts' sets.

    The gradient is that of the least part. It jumps where two parts are equal, and a flow that
    arrives there in steps goes back and forth between them; with a temperature t > 0 the minimum
    is smooth, -t log Σᵢ exp(-wᵢhᵢ/t), which lies at most t log k below the exact one, so that
    h ≥ 0 still means that all parts hold.

    Parameters:
        barriers: the parts h_i; after `fit`, the fitted ones.
        weights: w_i, positive; None for 1 each. For parts in different units, one over the
            ``upper_`` of each makes the minimum one of levels.
        temperature: t in units of the weighted parts; 0 for the exact minimum.
        fitting: see `Fitting`.
    """

    def __init__(
        self,
        barriers: tuple[Barrier, ...] = (LinearBarrier(), PolynomialBarrier()),
        weights: tuple[float, ...] | None = None,
        temperature: float = 0.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        super().__init__(barriers, weights, fitting)
        self.temperature = temperature

    def _fit(self, contrast: Contrast) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InvalidInputError(
                f"temperature must be a number ≥ 0, in units of the barriers, not"
                f" {self.temperature}."
            )
        super()._fit(contrast)

    def _combine(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.temperature == 0:
            least, which = values.min(dim=0)
            return least, torch.zeros_like(values).scatter_(0, which[None], 1.0)
        smooth = -self.temperature * torch.logsumexp(-values / self.temperature, dim=0)
        return smooth, torch.softmax(-values / self.temperature, dim=0)


class FrozenBarrier(Barrier):
    """The same h as a fitted barrier; `fit` only measures the quantiles that levels count in.

    For barriers of other data as parts of combined ones, or to use one barrier in several
    methods. Copies share the barrier inside. There are no held-out figures, since nobody knows
    which examples it has seen.

    Parameters:
        barrier: the fitted barrier.
        fitting: not used; every barrier has it.
    """

    def __init__(self, barrier: Barrier, fitting: Fitting = Fitting(folds=0)) -> None:
        self.barrier = barrier
        self.fitting = fitting

    def clone(self) -> Self:
        copy = super().clone()
        copy.barrier = self.barrier
        return copy

    def with_params(self, **changes: Any) -> Self:
        copy = super().with_params(**changes)
        copy.barrier = changes.get("barrier", self.barrier)
        return copy

    def _fit(self, contrast: Contrast) -> None:
        if not isinstance(self.barrier, Barrier):
            raise InvalidInputError(
                f"FrozenBarrier holds a fitted barrier, not {self.barrier!r:.80}."
            )
        self.barrier.check_fitted()
        if self.barrier.width_ != contrast.width:
            raise InvalidInputError(
                f"the frozen {type(self.barrier).__name__} was fitted on width"
                f" {self.barrier.width_}, and these activations have width {contrast.width}."
            )

    def _held_out_values(self, contrast: Contrast) -> None:
        return None

    def value(self, a: Tensor) -> Tensor:
        return self.barrier.value(self._input(a))

    def gradient(self, a: Tensor) -> Tensor:
        return self.barrier.gradient(self._input(a))

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        return self.barrier.value_and_gradient(self._input(a))

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        return self.barrier.restrict(self._input(a), radial=radial)


def _holds_frozen(barrier: Barrier) -> bool:
    if isinstance(barrier, CombinedBarrier):
        return any(map(_holds_frozen, barrier.barriers))
    return isinstance(barrier, FrozenBarrier)
