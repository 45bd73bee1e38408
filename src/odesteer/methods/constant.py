"""Methods with a constant vector field: CAA, RepE and ITI on the residual stream."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import (
    Barrier,
    Contrast,
    Fitting,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    PrincipalDifferenceBarrier,
)
from odesteer.barriers.linear import given_barrier, linear_normal
from odesteer.errors import InvalidInputError
from odesteer.flows import ConstantField, Solution
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method
from odesteer.methods.given_direction import read_direction
from odesteer.untrusted import is_number


class ConstantMethod(Method):
    """a + T·w: one Euler step, or any number of them, along a constant field w.

    T multiplies w, which need not have length one; ``strength`` is the length of the displacement
    in class deviations. ``level`` clamps: the barrier is linear and rises along
    w, so the step to the level has a closed form; activations already past it stay, and steps end
    at the cap ``max_strength``.

    A subclass implements `_fit`, which learns the linear barrier ``barrier_`` and ``direction_``
    w `[d]`, and has the parameter ``max_strength``.
    """

    quantities: ClassVar[tuple[str, ...]] = ("strength", "level", "T")
    keeps_norm: ClassVar[bool] = False
    cost: ClassVar[str] = "O(d)"
    added_parameters: ClassVar[Mapping[str, Any]] = {"max_strength": None}

    max_strength: float | None = None  # of subclasses without the parameter

    barrier_: Barrier
    direction_: Tensor

    @property
    def barrier(self) -> Barrier:
        """The fitted barrier, which rises along the direction."""
        self.check_fitted()
        return self.barrier_

    @property
    def field(self) -> ConstantField:
        """The constant field w."""
        self.check_fitted()
        return ConstantField(self.direction_)

    def constant_displacement(self, amount: Amount | None = None) -> Tensor | None:
        self.check_fitted()
        amount = self.default_amount if amount is None else amount
        self.check_amount(amount)
        if amount.quantity == "level" or isinstance(amount.value, Tensor):
            return None
        direction = self.direction_.double()
        multiplier = float(amount.value)
        if amount.quantity == "strength":
            multiplier *= self.strength_unit / float(direction.norm())
        return (multiplier * direction).to(self.direction_)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        direction = self.direction_.to(a)
        length = direction.norm()
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        reached = None
        if amount.quantity == "level":
            # h(a + t·w) = h(a) + t·(∇h·w), and ∇h is the same everywhere.
            h, threshold = self.barrier_.value(a), self.barrier_.threshold(value)
            gradient = self.barrier_.gradient(torch.zeros_like(direction))
            missing = (threshold - h) / (gradient @ direction)
            wanted = torch.where(value >= 0, missing.clamp_min(0), missing.clamp_max(0))
            multiplier = wanted
            if self.max_strength is not None:
                cap = self.max_strength * self.strength_unit / length
                multiplier = torch.maximum(torch.minimum(wanted, cap), -cap)
            reached = multiplier == wanted
        elif amount.quantity == "strength":
            multiplier = value * self.strength_unit / length
        else:
            multiplier = value
        multiplier = multiplier.expand(a.shape[:-1])
        moved = a + multiplier[..., None] * direction
        # Adding zero would turn -0 into 0.
        state = torch.where(multiplier[..., None] == 0, a, moved)
        return Solution(state, multiplier.abs() * length, reached=reached)


class CAA(ConstantMethod):
    """a + T·(μ₊ - μ₋): contrastive activation addition, one step along a constant field.

    T multiplies the mean difference, which is not normalised; ``strength`` is the length of the
    displacement in class deviations; ``level`` clamps the projection on the direction at a
    multiple of the 90 % quantile over positives, in closed form.

    Parameters:
        amount: default; a number is a strength, in class deviations.
        max_strength: the longest step to a level, in class deviations; None for
            no cap.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``direction_`` μ₊ - μ₋ `[d]`, and ``barrier_`` (μ₊ - μ₋)·(a - (μ₊ + μ₋)/2).

    `from_direction` makes one of a direction that is there already.
    """

    dynamics: ClassVar[str] = "constant, a' = a + T(μ₊ - μ₋)"
    barrier_summary: ClassVar[str] = "(μ₊ - μ₋)·(a - (μ₊ + μ₋)/2)"
    may_be_given: ClassVar[bool] = True
    reference: ClassVar[str] = "Rimsky et al., ACL 2024, arXiv 2312.06681"

    barrier_: MeanDifferenceBarrier

    amount_words: ClassVar[tuple[str, ...]] = ("T",)

    def __init__(
        self,
        amount: Amount | float = Amount("T", 1.0),
        max_strength: float | None = 10.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.amount = amount
        self.max_strength = max_strength
        self.fitting = fitting

    @classmethod
    def from_direction(
        cls,
        direction: Any,
        *,
        tensor: str | None = None,
        row: int | None = None,
        strength_unit: float | None = None,
        **parameters: Any,
    ) -> Self:
        """A CAA along a given direction v, fitted to nothing: a + T·v, with T = 1 by default.

        Args:
            direction: v, a tensor or array `[d]`, or the path of a safetensors file. Pickles
                (``.pt``) are refused.
            tensor: the name of the tensor in a file that holds several.
            row: the row of a matrix, as in ``from_direction("sae.safetensors", tensor="W_dec",
                row=1234)`` for a feature of a sparse autoencoder.
            strength_unit: the length in activation units that ``strength`` 1 stands for; ‖v‖
                without one, so that ``strength`` is T.
            parameters: of the constructor.

        The barrier is v·a. It has no examples, so no quantiles, and a level has no meaning; the
        mean norm is unknown (NaN). Raises `InvalidInputError` for what is no direction.
        """
        method = cls(**parameters)
        check_max_strength(method.max_strength)
        v = read_direction(direction, tensor, row)
        length = float(v.double().norm())
        unit = length if strength_unit is None else strength_unit
        if not is_number(unit) or not unit > 0:
            raise InvalidInputError(f"strength_unit must be a positive number, not {unit!r}.")
        method.check_amount(method.default_amount)
        method.width_ = len(v)
        method.mean_norm_ = math.nan
        method.strength_unit_ = float(unit)
        method.barrier_ = given_barrier(MeanDifferenceBarrier(fitting=Fitting(folds=0)), v)
        method.direction_ = v
        return method

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        barrier = MeanDifferenceBarrier(fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.direction_ = contrast.positive.mean(dim=0) - contrast.negative.mean(dim=0)
        rounding = 16 * torch.finfo(self.direction_.dtype).eps * self.mean_norm_
        if not float(self.direction_.norm()) > rounding:
            raise InvalidInputError("the means of both classes are equal; there is no direction.")


class RepE(ConstantMethod):
    """a + T·v with v the first principal component of paired differences, of length one.

    The differences are positive minus negative over pairs: within a group the first of both
    classes, the second of both, and so on, the shorter side serving again in turn; without groups,
    sets of equal size in order. An example without a partner stands against the mean of the other
    class. The sign of v is the one with which positives score higher on average.

    T is a length in activation units; ``strength`` is the same in class
    deviations; ``level`` clamps v·a in closed form.

    The reference implementation shuffles the two sides of each pair before it takes off the mean
    of the differences, so that the mean difference of the classes survives; this is what
    ``centred=False`` computes. With ``centred=True`` the mean is taken off differences that all
    have one sign, which removes what the classes differ in; the RepE of the comparison in arXiv
    2602.17560 is this form.

    Parameters:
        amount: default; a number is a strength, in class deviations.
        centred: whether the mean of the differences is taken off before their principal component,
            see above.
        max_strength: the longest step to a level, in class deviations; None for
            no cap.
        fitting: of the quantiles that levels count in, see `Fitting`.

    Learned: ``direction_`` v `[d]`, and ``barrier_`` v·(a - (μ₊ + μ₋)/2), which also knows the
    numbers of pairs and of examples without a partner (``n_pairs_``, ``n_alone_``).
    """

    dynamics: ClassVar[str] = "constant, a' = a + Tv, v the first component of paired differences"
    barrier_summary: ClassVar[str] = "v·(a - (μ₊ + μ₋)/2)"
    reference: ClassVar[str] = "Zou et al., 2023, arXiv 2310.01405"

    amount_words: ClassVar[tuple[str, ...]] = ("strength",)

    barrier_: PrincipalDifferenceBarrier

    def __init__(
        self,
        amount: Amount | float = 1.5,
        centred: bool = False,
        max_strength: float | None = 10.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.amount = amount
        self.centred = centred
        self.max_strength = max_strength
        self.fitting = fitting

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        barrier = PrincipalDifferenceBarrier(self.centred, fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.direction_ = linear_normal(self.barrier_)


class ITI(ConstantMethod):
    """a + T·θ with θ the unit normal of a logistic probe: the residual form of ITI.

    The form in which arXiv 2602.17560 compares ITI; `HeadITI` is the original, which acts on
    attention heads. T is a length in activation units; ``strength`` is the same in class
    deviations; ``level`` clamps the logit of the probe in closed form.

    Parameters:
        amount: default; a number is a strength, in class deviations.
        probe: the linear barrier whose normal is θ; the published probe by default.
            `LinearBarrier` is the same probe at its optimum, `MeanDifferenceBarrier` the mass mean
            shift of the paper.
        max_strength: the longest step to a level, in class deviations; None for
            no cap.

    Learned: ``direction_`` θ `[d]`, and ``barrier_``, the fitted probe: its logit,
    in nats.
    """

    dynamics: ClassVar[str] = "constant, a' = a + Tθ, θ the unit normal of a logistic probe"
    barrier_summary: ClassVar[str] = "logit of the probe, w·a + b, classes counting alike"
    reference: ClassVar[str] = "Li et al., NeurIPS 2023, arXiv 2306.03341"

    amount_words: ClassVar[tuple[str, ...]] = ("strength",)

    def __init__(
        self,
        amount: Amount | float = 1.5,
        probe: Barrier = LogisticProbeBarrier(),
        max_strength: float | None = 10.0,
    ) -> None:
        self.amount = amount
        self.probe = probe
        self.max_strength = max_strength

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        self.barrier_ = self.probe.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )
        self.direction_ = linear_normal(self.barrier_)
