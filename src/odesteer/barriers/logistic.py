"""L2-regularised logistic regression, in kernel (dual) and in feature (primal) form.

Both minimise ½‖w‖² + C Σᵢ log(1 + exp(-yᵢf(xᵢ))) over f = w·φ + b with a free intercept b, the
objective of scikit-learn's LogisticRegression, by Newton's method with step halving in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError, InvalidInputError

MAX_ITERATIONS = 100
TOLERANCE = 1e-9


def check_regularisation(C: float) -> None:
    """Raise `InvalidInputError` unless C is a positive finite number."""
    if not 0 < C < float("inf"):
        raise InvalidInputError(f"C must be a positive number, not {C}.")


def fit_dual(gram: Tensor, y: Tensor, C: float) -> tuple[Tensor, float]:
    """Dual weights α `[n]` and intercept b of f(x) = Σᵢ αᵢκ(xᵢ, x) + b.

    ``gram`` is `[n, n]` float64, ``y`` `[n]` holds 0 and 1. Each Newton step is one Cholesky
    factorisation of I + W½KW½ (Rasmussen and Williams 2006, algorithm 3.1, with a bordering row
    for the intercept), which stays well conditioned for singular K.
    """
    check_regularisation(C)
    n = y.shape[0]
    alpha, b = torch.zeros_like(y), _prior_logit(y)
    f = torch.full_like(y, b)
    objective = _dual_objective(alpha, f, y, C)
    eye = torch.eye(n, dtype=gram.dtype, device=gram.device)
    ones = torch.ones_like(y)
    for _ in range(MAX_ITERATIONS):
        p = torch.sigmoid(f)
        w = (C * p * (1 - p)).clamp_min(1e-12)
        root = w.sqrt()
        factor = torch.linalg.cholesky(eye + root[:, None] * gram * root)
        # (K + W⁻¹)(α) + b·1 = z  with  1·α = 0
        z = f + C * (y - p) / w
        solved = torch.cholesky_solve(root[:, None] * torch.stack([z, ones], dim=1), factor)
        solved = root[:, None] * solved
        new_b = solved[:, 0].sum() / solved[:, 1].sum()
        step_alpha = solved[:, 0] - new_b * solved[:, 1] - alpha
        step_b = float(new_b) - b
        step_f = gram @ step_alpha + step_b
        size = 1.0
        while True:
            trial = _dual_objective(alpha + size * step_alpha, f + size * step_f, y, C)
            if trial <= objective or size < 1e-8:
                break
            size /= 2
        alpha, b, f = alpha + size * step_alpha, b + size * step_b, f + size * step_f
        if objective - trial <= TOLERANCE * (1 + abs(objective)):
            return alpha, b
        objective = trial
    raise _not_converged(C)


def fit_primal(
    features: Tensor, y: Tensor, C: float, moment: Tensor | None = None
) -> tuple[Tensor, float]:
    """Weights w `[k]` and intercept b of f = w·φ + b from features `[n, k]` (any float type).

    Newton steps are found by conjugate gradients, preconditioned by the bound ¼C ΦᵀΦ + I on the
    Hessian (Böhning and Lindsay 1988), so that ΦᵀΦ is formed once; ``moment`` passes it in (from
    `second_moment`, of these or similar examples).
    """
    check_regularisation(C)
    k = features.shape[1]
    moment = second_moment(features) if moment is None else moment
    ridge = torch.ones(k + 1, dtype=torch.float64, device=features.device)
    ridge[k] = 1e-12  # the intercept is free
    bound = torch.linalg.cholesky(0.25 * C * moment + ridge.diag())
    theta = torch.zeros_like(ridge)
    theta[k] = _prior_logit(y)
    f = _apply(features, theta)
    objective = _primal_objective(theta, f, y, C)
    for _ in range(MAX_ITERATIONS):
        p = torch.sigmoid(f)
        gradient = ridge * theta + _transpose(features, C * (p - y))
        curvature = C * p * (1 - p)

        def hessian(v: Tensor, curvature: Tensor = curvature) -> Tensor:
            return ridge * v + _transpose(features, curvature * _apply(features, v))

        step = _conjugate_gradients(hessian, -gradient, bound)
        step_f = _apply(features, step)
        size = 1.0
        while True:
            trial = _primal_objective(theta + size * step, f + size * step_f, y, C)
            if trial <= objective or size < 1e-8:
                break
            size /= 2
        theta, f = theta + size * step, f + size * step_f
        if objective - trial <= TOLERANCE * (1 + abs(objective)):
            return theta[:k], float(theta[k])
        objective = trial
    raise _not_converged(C)


def fit_features(features: Tensor, y: Tensor, C: float) -> tuple[Tensor, float]:
    """`fit_primal` where there are more examples than features, else the same by `fit_dual`."""
    n, k = features.shape
    if n > k:
        return fit_primal(features, y, C)
    features = features.double()
    alpha, b = fit_dual(features @ features.T, y, C)
    return alpha @ features, b


def second_moment(features: Tensor) -> Tensor:
    """ΦᵀΦ of features with a column of ones, `[k + 1, k + 1]` float64, summed in chunks."""
    k = features.shape[1]
    moment = torch.zeros(k + 1, k + 1, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), _CHUNK):
        block = torch.nn.functional.pad(features[start : start + _CHUNK], (0, 1), value=1.0)
        moment += (block.T @ block).double()
    return moment


_CHUNK = 8192


def _apply(features: Tensor, theta: Tensor) -> Tensor:
    return (features @ theta[:-1].to(features)).double() + theta[-1]


def _transpose(features: Tensor, v: Tensor) -> Tensor:
    return torch.cat([(v.to(features) @ features).double(), v.sum()[None]])


def _conjugate_gradients(
    hessian: Callable[[Tensor], Tensor], rhs: Tensor, factor: Tensor
) -> Tensor:
    """Solve H x = rhs to a relative residual of 1e-6 in the preconditioned norm."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    z = torch.cholesky_solve(r[:, None], factor)[:, 0]
    direction, rz = z, float(r @ z)
    goal = rz * 1e-12
    for _ in range(200):
        if rz <= goal:
            break
        product = hessian(direction)
        size = rz / float(direction @ product)
        x, r = x + size * direction, r - size * product
        z = torch.cholesky_solve(r[:, None], factor)[:, 0]
        previous, rz = rz, float(r @ z)
        direction = z + (rz / previous) * direction
    return x


def _prior_logit(y: Tensor) -> float:
    return float(torch.logit(y.mean()))


def _loss(f: Tensor, y: Tensor, C: float) -> float:
    return C * float((torch.nn.functional.softplus(f) - y * f).sum())


def _dual_objective(alpha: Tensor, f: Tensor, y: Tensor, C: float) -> float:
    # αᵀKα = α·(f - b) = α·f, since α sums to zero along every Newton step.
    return 0.5 * float(alpha @ f) + _loss(f, y, C)


def _primal_objective(theta: Tensor, f: Tensor, y: Tensor, C: float) -> float:
    return 0.5 * float(theta[:-1].square().sum()) + _loss(f, y, C)


def _not_converged(C: float) -> ConvergenceError:
    return ConvergenceError(
        f"logistic regression did not converge in {MAX_ITERATIONS} Newton steps at C={C};"
        " use a smaller C (stronger regularisation)."
    )
