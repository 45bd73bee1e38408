"""Linear barriers: logistic regression, mean difference, principal component of differences."""

import math
import warnings
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from odesteer.barriers.base import Barrier
from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import HeldOutValues, choose_regularisation
from odesteer.barriers.inputs import Centred, Inputs, Raw, UnitSphere
from odesteer.barriers.logistic import check_regularisation, fit_constant, fit_features
from odesteer.barriers.pairing import pair
from odesteer.barriers.quadratic import QuadraticFunction, linear_function
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.untrusted import is_integer


class LinearBarrier(ComposedBarrier):
    """h(x) = w·x + b by L2-regularised logistic regression.

    Parameters:
        C: inverse strength of the regularisation, as in scikit-learn; or several, to choose from
            by the log loss on held-out groups.
        inputs: what the classifier sees; `Centred` activations by default.
        fitting: see `Fitting`.

    Learned: ``C_``, the regularisation used.
    """

    C_: float

    def __init__(
        self,
        C: float | Sequence[float] = 1.0,
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.C = C
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        several = isinstance(self.C, Sequence) and len(self.C) > 1
        n_folds = max(self.folds, 3) if several else self.folds

        def held_out_values(C: float) -> HeldOutValues | None:
            return self.with_params(C=C, folds=n_folds)._held_out_values(contrast)

        self.C_, held_out = choose_regularisation(self.C, contrast.labels, held_out_values)
        x = self._prepare(contrast)
        y = contrast.labels.to(x.device)
        weight, intercept = fit_features(x, y, self.C_, balanced=True)
        self.function_ = linear_function(weight.to(x.dtype), intercept)
        return held_out


class HomogeneousBarrier(ComposedBarrier):
    """h(x) = w·x by L2-regularised logistic regression through the origin.

    Its boundary is the hyperplane of the reflection I - 2wwᵀ/‖w‖², which changes the sign of h.
    Both classes count alike whatever their numbers, so that there is no prior to correct for.
    scikit-learn's L-BFGS in float64, with balanced class weights.

    Parameters:
        C: inverse strength of the regularisation, as in scikit-learn.
        inputs: what the classifier sees; directions by default.
        fitting: see `Fitting`.
    """

    def __init__(
        self, C: float = 1.0, inputs: Inputs = UnitSphere(), fitting: Fitting = Fitting()
    ) -> None:
        self.C = C
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        check_regularisation(self.C)
        x = self._prepare(contrast)
        self.function_ = linear_function(self._weight(x, contrast.labels), 0.0)

    def _weight(self, x: Tensor, y: Tensor) -> Tensor:
        from sklearn.linear_model import LogisticRegression

        probe = LogisticRegression(
            C=self.C,
            fit_intercept=False,
            class_weight="balanced",
            tol=1e-8 * min(1.0, _first_gradient(x, y)),
            max_iter=_MAX_ITERATIONS,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what does not converge is an error below
            probe.fit(x.detach().double().cpu().numpy(), y.numpy())
        if int(probe.n_iter_[0]) >= _MAX_ITERATIONS:
            raise ConvergenceError(
                f"logistic regression through the origin did not converge in {_MAX_ITERATIONS}"
                f" steps at C={self.C}; use a smaller C (stronger regularisation)."
            )
        return torch.from_numpy(probe.coef_[0]).to(x)


class LogisticProbeBarrier(ComposedBarrier):
    """h(a) = w·a + b by scikit-learn's LogisticRegression, stopped where it stops by default.

    The objective is that of `LinearBarrier`, without class weights. L-BFGS ends where no component
    of the gradient of the mean loss exceeds ``tolerance`` (or a hundredth of the first gradient,
    where that is less), and on activations as they are that is before the optimum: on those of
    the recorded published runs the unit normal is 0.09 (width 48) and 0.007 (width 32) from it.
    This class exists to have the published probes; use `LinearBarrier` for the optimum.

    Parameters:
        C: inverse strength of the regularisation.
        tolerance, max_iterations: of L-BFGS. Where it does not get to the tolerance, as on
            activations with a few large coordinates, Newton's method goes on to the optimum.
        inputs: what the probe sees; activations as they are by default.
        fitting: see `Fitting`.
    """

    def __init__(
        self,
        C: float = 1.0,
        tolerance: float = 1e-4,
        max_iterations: int = 1000,
        inputs: Inputs = Raw(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.C = C
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        self._check_parameters()
        x = self._prepare(contrast)
        # Where activations are so small that the tolerance would end the fit before it begins,
        # the tolerance is relative.
        tolerance = min(self.tolerance, 0.01 * _first_gradient(x, contrast.labels))
        model = LogisticRegression(C=self.C, tol=tolerance, max_iter=self.max_iterations)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x.detach().cpu().numpy(), contrast.labels.numpy())
        weight, intercept = torch.from_numpy(model.coef_[0]), float(model.intercept_[0])
        if any(issubclass(item.category, ConvergenceWarning) for item in caught):
            weight, intercept = fit_features(x, contrast.labels.to(x.device), self.C)
        if len(contrast.positive) != len(contrast.negative):
            # The published direction, but with both classes counting alike in where h is 0.
            intercept = fit_constant(x.double() @ weight.to(x.device).double(), contrast.labels)
        self.function_ = linear_function(weight.to(x), intercept)

    def _check_parameters(self) -> None:
        check_regularisation(self.C)
        if not 0 < self.tolerance < math.inf:
            raise InvalidInputError(f"tolerance must be a positive number, not {self.tolerance}.")
        n = self.max_iterations
        if not is_integer(n, 1):
            raise InvalidInputError(f"max_iterations must be a positive integer, not {n!r}.")


class MeanDifferenceBarrier(ComposedBarrier):
    """h(x) = (μ₊ - μ₋)·(x - (μ₊ + μ₋)/2), the barrier that contrastive activation addition climbs.

    The value is a projection in squared input units, not nats. With `UnitSphere` inputs it is the
    mean difference of directions.
    """

    def __init__(self, inputs: Inputs = Raw(), fitting: Fitting = Fitting()) -> None:
        self.inputs = inputs
        self.fitting = fitting

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        self.function_ = halfway_function(x[:n], x[n:], None)


class PrincipalDifferenceBarrier(ComposedBarrier):
    """h(x) = v·(x - (μ₊ + μ₋)/2), v the first principal component of differences of pairs.

    Pairs are those of `pair`, and are never split between folds. v has length one and the sign
    that makes positives score higher than negatives on average, so that h is a length in input
    units, not nats.

    Parameters:
        centred: whether the mean of the differences is taken off first, which also takes off what
            the classes differ in. Without, v follows the mean difference too; that is what the
            reference implementation of RepE does by shuffling the sides of each pair.
        inputs: activations as they are by default.
        fitting: see `Fitting`.

    Learned: ``n_pairs_``, and ``n_alone_``, the number of examples without a partner.
    """

    n_pairs_: int
    n_alone_: int

    def __init__(
        self, centred: bool = False, inputs: Inputs = Raw(), fitting: Fitting = Fitting()
    ) -> None:
        self.centred = centred
        self.inputs = inputs
        self.fitting = fitting

    def _fit(self, contrast: Contrast) -> None:
        x, n = self._prepare(contrast), len(contrast.positive)
        prepared = Contrast(x[:n], x[n:], contrast.groups)
        pairs = pair(prepared)
        self.n_pairs_, self.n_alone_ = len(pairs), pairs.n_alone
        positive, negative = pairs.sides(prepared)
        differences = positive.double() - negative.double()
        if self.centred:
            differences = differences - differences.mean(dim=0)
        noise = torch.finfo(x.dtype).eps * float(x.double().norm(dim=1).max())
        if not float(differences.norm(dim=1).max()) > 4 * noise:
            raise InvalidInputError(
                "the differences of all pairs are the same, so they have no principal component;"
                " use centred=False or CAA."
            )
        means = x[:n].double().mean(dim=0), x[n:].double().mean(dim=0)
        v = _principal_component(differences)
        v = v * _sign(v, means[0] - means[1])
        offset = -float(v @ (means[0] + means[1])) / 2
        self.function_ = linear_function(v.to(x.dtype), offset)


def _first_gradient(x: Tensor, y: Tensor) -> float:
    """The largest component of the gradient of the mean log loss at zero weights."""
    x, residual = x.double(), (y - 0.5).to(x.device)
    steepest = float((residual @ x).abs().max()) / len(x)
    return steepest or math.inf


def halfway_function(
    positive: Tensor, negative: Tensor, covariance: Tensor | None
) -> QuadraticFunction:
    """w·(x - (μ₊ + μ₋)/2) with w = Σ⁻¹(μ₊ - μ₋), Σ the identity when None."""
    mean_positive, mean_negative = positive.mean(dim=0), negative.mean(dim=0)
    weight = mean_positive - mean_negative
    if covariance is not None:
        weight = torch.linalg.solve(covariance.double(), weight.double()).to(weight)
    middle = (mean_positive + mean_negative) / 2
    return linear_function(weight, -float(weight @ middle))


_MAX_ITERATIONS = 5000

LinearKind = TypeVar("LinearKind", bound=ComposedBarrier)


def given_barrier(barrier: LinearKind, weight: Tensor, offset: float = 0.0) -> LinearKind:
    """The unfitted ``barrier`` as w·a + offset on raw activations, with quantiles unknown."""
    barrier.width_ = len(weight)
    barrier.inputs_ = Raw()
    barrier.function_ = linear_function(weight, offset)
    barrier.calibration_, barrier.held_out_ = 1.0, None
    barrier.upper_ = barrier.lower_ = math.nan
    return barrier


def linear_normal(barrier: Barrier) -> Tensor:
    """The unit normal `[d]` of a fitted linear barrier, towards the positives.

    Raises `InvalidInputError` for barriers whose gradient is not the same everywhere, and for
    those whose gradient is zero.
    """
    function = getattr(barrier, "function_", None)
    linear = (
        isinstance(barrier, ComposedBarrier)
        and isinstance(barrier.inputs, (Raw, Centred))
        and isinstance(function, QuadraticFunction)
        and not bool(function.curvature_.any())
    )
    if not linear:
        raise InvalidInputError(
            f"{barrier!r} is no linear probe; use LogisticProbeBarrier, LinearBarrier,"
            " LinearDiscriminantBarrier or MeanDifferenceBarrier on Raw or Centred inputs."
        )
    assert isinstance(function, QuadraticFunction)
    gradient = barrier.gradient(torch.zeros(barrier.width_).to(function.slope_))
    largest = gradient.abs().max()
    if not float(largest) > 0:
        raise InvalidInputError(
            f"{barrier!r} found no direction between the classes; its weights are zero."
        )
    # Scaled first, since squares of very small or large weights leave the range of the type.
    return torch.nn.functional.normalize(gradient / largest, dim=0)


def _principal_component(differences: Tensor) -> Tensor:
    """The direction `[d]` of largest second moment of `[m, d]`, from the smaller Gram matrix."""
    m, d = differences.shape
    differences = differences / differences.abs().max()
    if m >= d:
        v: Tensor = torch.linalg.eigh(differences.T @ differences)[1][:, -1]
        return v
    u = torch.linalg.eigh(differences @ differences.T)[1][:, -1]
    return torch.nn.functional.normalize(u @ differences, dim=0)


def _sign(v: Tensor, mean_difference: Tensor) -> float:
    """1 or -1: which way positives score higher; by the largest entry of v where neither does."""
    score = float(v @ mean_difference)
    return 1.0 if (score or float(v[v.abs().argmax()])) > 0 else -1.0
