"""Polynomial barriers with the exact kernel."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import (
    HeldOutValues,
    choose_regularisation,
    group_folds,
    held_out_quality,
)
from odesteer.barriers.inputs import Inputs, Standardized, UnitSphere
from odesteer.barriers.kernel_machine import ExactMachine, NystromMachine
from odesteer.barriers.quadratic import (
    QuadraticFunction,
    linear_function,
    quadratic_from_kernel,
    truncate,
)
from odesteer.errors import InvalidInputError
from odesteer.estimator import Parametrised
from odesteer.untrusted import is_integer

# How the rank is chosen: activations, Euler steps, their length in mean norms, factor of safety.
_RANK_SAMPLE = 64
_RANK_STEPS = 4
_RANK_STRENGTH = 0.5
_RANK_MARGIN = 2.0
# Of several inputs the first is taken that has this share of the best one's margin of AUC.
_SUFFICIENT = 0.75


class KernelApproximation(Parametrised):
    """How closely a kernel barrier follows the exact kernel on all examples.

    Parameters:
        rank_tolerance: the rank of a quadratic function is the smallest that displaces the
            training activations with no more than this relative error; 0 keeps the full rank.
        max_exact: above this many examples a Nyström approximation replaces the Gram matrix.
        n_landmarks: landmarks of that approximation.
    """

    family: ClassVar[str] = "approximation"
    formerly_separate: ClassVar[tuple[str, ...]] = ("rank_tolerance", "max_exact", "n_landmarks")

    def __init__(
        self, rank_tolerance: float = 1e-4, max_exact: int = 4000, n_landmarks: int = 1024
    ) -> None:
        self.rank_tolerance = rank_tolerance
        self.max_exact = max_exact
        self.n_landmarks = n_landmarks

    def check(self) -> None:
        """Raise `InvalidInputError` for parameters with which nothing can be fitted."""
        if not is_integer(self.max_exact, 0) or not is_integer(self.n_landmarks, 1):
            raise InvalidInputError(
                "max_exact must be at least 0 and n_landmarks at least 1, both integers, not"
                f" {self.max_exact!r} and {self.n_landmarks!r}."
            )
        if not 0 <= self.rank_tolerance < 1:
            raise InvalidInputError(
                f"rank_tolerance must be in [0, 1), not {self.rank_tolerance}; 0 keeps every rank."
            )


class PolynomialBarrier(ComposedBarrier):
    """Kernel logistic regression with κ(x, y) = (γ x·y + c₀)^p.

    The estimator that the random features of arXiv 2602.17560 (section 4.2) approximate, without
    their noise. Degrees 1 and 2 are stored as a quadratic function in its eigenbasis, higher
    degrees as a kernel expansion over the examples or landmarks.

    Parameters:
        degree: p, from 1 to 4.
        gamma, c0: γ > 0 and c₀ ≥ 0 of the kernel.
        C: inverse strength of the regularisation, as in scikit-learn; or several, to choose from
            by the log loss on held-out groups.
        inputs: what the kernel sees: the direction a/‖a‖ (paper), `Centred` activations and so on;
            or several, of which the first is taken whose held-out AUC has three quarters of the
            margin over one half that the best has. By default the direction, and `Standardized`
            activations where a few large coordinates hide from it what separates the classes.
        approximation: of the kernel, see `KernelApproximation`; its parameters are also taken one
            by one, as in ``PolynomialBarrier(rank_tolerance=0)``.
        fitting: see `Fitting`; the seed also draws the landmarks.

    Learned: ``C_``, the regularisation used; ``chosen_``, which of several inputs, from 0.
    """

    C_: float
    chosen_: int

    def __init__(
        self,
        degree: int = 2,
        gamma: float = 0.1,
        c0: float = 1.0,
        C: float | Sequence[float] = 1.0,
        inputs: Inputs | Sequence[Inputs] = (UnitSphere(), Standardized(1.0)),
        approximation: KernelApproximation = KernelApproximation(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.degree = degree
        self.gamma = gamma
        self.c0 = c0
        self.C = C
        self.inputs = inputs  # type: ignore[assignment]
        self.approximation = approximation
        self.fitting = fitting

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """κ between the rows of x `[n, d]` and y `[m, d]`: `[n, m]`."""
        return (self.gamma * (x @ y.T) + self.c0) ** self.degree

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        self._check_parameters()
        machine, held_out = self._with_chosen_inputs(contrast)
        y = contrast.labels.to(machine.points.device)
        weights, intercept = machine.expand(machine.fit(None, y, self.C_))
        self.function_ = self._function(
            machine.points.double(), weights, intercept, contrast.examples
        )
        return held_out

    def _with_chosen_inputs(
        self, contrast: Contrast
    ) -> tuple[ExactMachine | NystromMachine, HeldOutValues | None]:
        """Fit and choose the inputs; the machine on them, and the held-out values of h."""
        several = self._several_inputs()
        if len(several) == 1:
            return self._on_inputs(contrast, several[0])
        aucs = [
            _auc(self._on_inputs(contrast, inputs)[1], contrast.labels) for inputs in several[1:]
        ]
        # The first one last, so that it need not be prepared again where it is taken.
        machine, held_out = self._on_inputs(contrast, several[0])
        aucs = [_auc(held_out, contrast.labels), *aucs]
        least = 0.5 + _SUFFICIENT * (max(aucs) - 0.5)
        self.chosen_ = next((i for i, auc in enumerate(aucs) if auc >= least), 0)
        if self.chosen_:
            del machine  # Gram matrices and features are large
            machine, held_out = self._on_inputs(contrast, several[self.chosen_])
        return machine, held_out

    def _several_inputs(self) -> tuple[Inputs, ...]:
        """The inputs to choose from; without folds the first alone."""
        given = self.get_params(deep=False)["inputs"]
        several = (given,) if isinstance(given, Inputs) else tuple(given)
        held_out = self.folds or (isinstance(self.C, Sequence) and len(self.C) > 1)
        return several if held_out else several[:1]

    def _without_folds(self) -> Self:
        copy = super()._without_folds()
        several, chosen = self.get_params(deep=False)["inputs"], getattr(self, "chosen_", 0)
        return copy.with_params(inputs=several[chosen]) if chosen else copy

    def _on_inputs(
        self, contrast: Contrast, inputs: Inputs
    ) -> tuple[ExactMachine | NystromMachine, HeldOutValues | None]:
        x = self._prepare(contrast, inputs)
        machine = (
            ExactMachine(self.kernel, x)
            if len(x) <= self.approximation.max_exact
            else NystromMachine(self.kernel, x, self.approximation.n_landmarks, self.seed)
        )
        self.C_, held_out = self._cross_validate(machine, contrast)
        return machine, held_out

    def _function(
        self, points: Tensor, weights: Tensor, offset: float, a: Tensor
    ) -> Function | QuadraticFunction:
        if self.degree > 2:
            function = KernelExpansion(self.degree, self.gamma, self.c0)
            return function.over(points.to(a.dtype), weights.to(a.dtype), offset)
        if self.degree == 1:
            slope = self.gamma * (weights @ points)
            return linear_function(slope, self.c0 * float(weights.sum()) + offset).to(dtype=a.dtype)
        full = quadratic_from_kernel(points, weights, self.gamma, self.c0, offset)
        rank = choose_rank(full, self.inputs, a, self.approximation.rank_tolerance)
        return truncate(full, rank).to(dtype=a.dtype)

    def _cross_validate(
        self, machine: ExactMachine | NystromMachine, contrast: Contrast
    ) -> tuple[float, HeldOutValues | None]:
        """The C of least held-out log loss, and the held-out values of h at it."""
        y = contrast.labels.to(machine.points.device)
        several = isinstance(self.C, Sequence) and len(self.C) > 1
        n_folds = max(self.folds, 3) if several else self.folds
        masks = list(group_folds(contrast.groups, contrast.labels, n_folds, self.seed))

        def held_out_values(C: float) -> HeldOutValues | None:
            if not masks:
                return None
            h = torch.zeros(len(y), dtype=torch.float64)
            for mask in masks:
                rows = (~mask).to(machine.points.device)
                h[mask] = machine.predict(machine.fit(rows, y[rows], C), ~rows).cpu()
            return h, torch.stack(masks).any(dim=0)

        return choose_regularisation(self.C, contrast.labels, held_out_values)

    def _check_parameters(self) -> None:
        if self.degree not in (1, 2, 3, 4):
            raise InvalidInputError(f"degree must be 1, 2, 3 or 4, not {self.degree}.")
        if not self.gamma > 0 or not self.c0 >= 0:
            raise InvalidInputError(
                f"the kernel needs gamma > 0 and c0 >= 0, not gamma={self.gamma}, c0={self.c0}."
            )
        several = self.get_params(deep=False)["inputs"]
        several = several if isinstance(several, (list, tuple)) else [several]
        if not several or not all(isinstance(inputs, Inputs) for inputs in several):
            raise InvalidInputError(
                f"inputs must be Inputs, such as UnitSphere(), or several, not {several!r:.80}."
            )
        if not isinstance(self.approximation, KernelApproximation):
            raise InvalidInputError(
                f"approximation must be a KernelApproximation(...), not {self.approximation!r:.80}."
            )
        self.approximation.check()


def _auc(held_out: HeldOutValues | None, y: Tensor) -> float:
    if held_out is None:
        return 0.0
    values, rated = held_out
    return held_out_quality(values[rated], y[rated])["auc"]


class KernelExpansion(Function):
    """f(x) = Σᵢ wᵢ(γ x·xᵢ + c₀)^p + c over stored points.

    Learned: ``points_`` `[n, d]`, ``weights_`` `[n]`, ``offset_``.
    """

    points_: Tensor
    weights_: Tensor
    offset_: float

    def __init__(self, degree: int, gamma: float, c0: float) -> None:
        self.degree = degree
        self.gamma = gamma
        self.c0 = c0

    def over(self, points: Tensor, weights: Tensor, offset: float) -> "KernelExpansion":
        """Set the points, their weights and the constant."""
        self.points_, self.weights_, self.offset_ = points, weights, offset
        return self

    def scaled(self, factor: float) -> "KernelExpansion":
        copy = KernelExpansion(self.degree, self.gamma, self.c0)
        return copy.over(self.points_, factor * self.weights_, factor * self.offset_)

    def value(self, x: Tensor) -> Tensor:
        # In the order of `value_and_gradient`, so that both give the same bits.
        base = self.gamma * (x @ self.points_.to(x).T) + self.c0
        weighted = self.weights_.to(x) * base ** (self.degree - 1)
        return (weighted * base).sum(-1) + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points = self.points_.to(x)
        base = self.gamma * (x @ points.T) + self.c0
        weighted = self.weights_.to(x) * base ** (self.degree - 1)
        gradient = (self.degree * self.gamma) * (weighted @ points)
        return (weighted * base).sum(-1) + self.offset_, gradient


def choose_rank(function: QuadraticFunction, inputs: Inputs, a: Tensor, tolerance: float) -> int:
    """The smallest rank whose flow displaces activations with relative error ≤ ``tolerance``.

    Measured on up to 64 of the training activations ``a`` `[n, d]`, spread evenly, moved along
    the unit gradient by half their mean norm in four Euler steps; the largest error counts, and
    twice, since activations outside the sample err up to one and a half times as much.
    """
    if tolerance == 0 or function.rank <= 1:
        return function.rank
    rows = torch.linspace(0, len(a) - 1, min(len(a), _RANK_SAMPLE), dtype=torch.float64).long()
    sample = a[rows.to(a.device)].double()
    exact = _displacement(function, inputs, sample)
    length = exact.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)

    def error(rank: int) -> float:
        moved = _displacement(truncate(function, rank), inputs, sample)
        return _RANK_MARGIN * float(((moved - exact).norm(dim=1) / length).max())

    low, high = 0, function.rank
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= tolerance else (middle, high)
    return high


def _displacement(function: QuadraticFunction, inputs: Inputs, a: Tensor) -> Tensor:
    step = _RANK_STRENGTH * a.norm(dim=1).mean() / _RANK_STEPS
    moved = a
    for _ in range(_RANK_STEPS):
        x = inputs(moved)
        gradient = inputs.pull_back(moved, x, function.gradient(x))
        moved = moved + step * torch.nn.functional.normalize(gradient, dim=1, eps=1e-300)
    return moved - a
