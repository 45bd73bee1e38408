"""L2-regularised logistic regression, in kernel (dual) and in feature (primal) form.

Both minimise ½‖w‖² + C Σᵢ log(1 + exp(-yᵢf(xᵢ))) over f = w·φ + b with a free intercept b, the
objective of scikit-learn's LogisticRegression, by Newton's method with step halving in float64.
``balanced`` is its ``class_weight="balanced"``: an example of a class of n₊ among n counts n/2n₊,
so that f estimates the log ratio of the class densities, and no prior is left in it. A term
log(n₋/n₊) added after an unweighted fit does not do the same: regularisation shrinks f towards the
constant log(n₊/n₋), and what is shrunk away stays in.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError, InvalidInputError

MAX_ITERATIONS = 100
TOLERANCE = 1e-9

# Features are taken to float64 up to this many numbers (256 MiB), and used as they are beyond.
_MOST_IN_DOUBLE = 2**25
_CHUNK = 8192


def check_regularisation(C: float) -> None:
    """Raise `InvalidInputError` unless C is a positive finite number."""
    if not 0 < C < float("inf"):
        raise InvalidInputError(f"C must be a positive number, not {C}.")


def class_weights(y: Tensor) -> Tensor | None:
    """`[n]`, n/2n₊ for positives and n/2n₋ for negatives; None where all are 1."""
    share = float(y.mean())
    return None if share == 0.5 else torch.where(y == 1, 0.5 / share, 0.5 / (1 - share))


def fit_dual(gram: Tensor, y: Tensor, C: float, *, balanced: bool = False) -> tuple[Tensor, float]:
    """Dual weights α `[n]` and intercept b of f(x) = Σᵢ αᵢκ(xᵢ, x) + b.

    ``gram`` is `[n, n]` float64, ``y`` `[n]` holds 0 and 1. Each Newton step is one Cholesky
    factorisation of I + W½KW½ (Rasmussen and Williams 2006, algorithm 3.1, with a bordering row
    for the intercept), which stays well conditioned for singular K.
    """
    check_regularisation(C)
    cost = _cost(y, C, balanced)
    n = y.shape[0]
    alpha, b = torch.zeros_like(y), _prior_logit(y, balanced)
    f = torch.full_like(y, b)
    objective = _loss(f, y, cost)
    eye = torch.eye(n, dtype=gram.dtype, device=gram.device)
    ones = torch.ones_like(y)
    for _ in range(MAX_ITERATIONS):
        p = torch.sigmoid(f)
        w = (cost * p * (1 - p)).clamp_min(1e-12)
        root = w.sqrt()
        factor = _cholesky(eye + root[:, None] * gram * root, C)
        # (K + W⁻¹)(α) + b·1 = z  with  1·α = 0
        z = f + cost * (y - p) / w
        solved = torch.cholesky_solve(root[:, None] * torch.stack([z, ones], dim=1), factor)
        solved = root[:, None] * solved
        new_b = solved[:, 0].sum() / solved[:, 1].sum()
        step_alpha = solved[:, 0] - new_b * solved[:, 1] - alpha
        step_b = float(new_b) - b
        step_f = gram @ step_alpha + step_b
        # αᵀKα = α·(f - b) = α·f, since α sums to zero along every Newton step.
        penalty = (
            0.5 * float(alpha @ f),
            0.5 * float(alpha @ step_f + step_alpha @ f),
            0.5 * float(step_alpha @ step_f),
        )
        size, value = _line_search(penalty, f, step_f, y, cost)
        alpha, b, f = alpha + size * step_alpha, b + size * step_b, f + size * step_f
        if size == 0 or objective - value <= TOLERANCE * objective:
            return alpha, b
        objective = value
    raise _not_converged(C)


def fit_primal(
    features: Tensor,
    y: Tensor,
    C: float,
    moment: Tensor | None = None,
    *,
    balanced: bool = False,
) -> tuple[Tensor, float]:
    """Weights w `[k]` and intercept b of f = w·φ + b from features `[n, k]` (any float type).

    Newton steps are found by conjugate gradients, preconditioned by the bound ¼C ΦᵀΦ + I on the
    Hessian (Böhning and Lindsay 1988), so that ΦᵀΦ is formed once; ``moment`` passes it in (from
    `second_moment`, of these or similar examples). Where many examples are far from the boundary
    the bound is too loose, and a Hessian takes its place.
    """
    check_regularisation(C)
    cost = _cost(y, C, balanced)
    if moment is None:
        moment = second_moment(features, class_weights(y) if balanced else None)
    if features.numel() <= _MOST_IN_DOUBLE:
        features = features.double()
    k = features.shape[1]
    ridge = torch.ones(k + 1, dtype=torch.float64, device=features.device)
    ridge[k] = 0  # the intercept is free
    factor = _cholesky(0.25 * C * moment + ridge.diag(), C)
    theta = torch.zeros_like(ridge)
    theta[k] = _prior_logit(y, balanced)
    f = _apply(features, theta)
    objective = _loss(f, y, cost)
    for _ in range(MAX_ITERATIONS):
        p = torch.sigmoid(f)
        gradient = ridge * theta + _transpose(features, cost * (p - y))
        curvature = cost * p * (1 - p)

        def hessian(v: Tensor, curvature: Tensor = curvature) -> Tensor:
            return ridge * v + _transpose(features, curvature * _apply(features, v))

        step, solved = _conjugate_gradients(hessian, -gradient, factor)
        if not solved:
            factor = _cholesky(second_moment(features, curvature) + ridge.diag(), C)
            step, _ = _conjugate_gradients(hessian, -gradient, factor)
        step_f = _apply(features, step)
        w, step_w = theta[:k], step[:k]
        penalty = (
            0.5 * float(w.square().sum()),
            float(w @ step_w),
            0.5 * float(step_w.square().sum()),
        )
        size, value = _line_search(penalty, f, step_f, y, cost)
        theta, f = theta + size * step, f + size * step_f
        if size == 0 or objective - value <= TOLERANCE * objective:
            return theta[:k], float(theta[k])
        objective = value
    raise _not_converged(C)


def fit_features(
    features: Tensor, y: Tensor, C: float, *, balanced: bool = False
) -> tuple[Tensor, float]:
    """`fit_primal` where there are more examples than features, else the same by `fit_dual`."""
    n, k = features.shape
    if n > k:
        return fit_primal(features, y, C, balanced=balanced)
    features = features.double()
    alpha, b = fit_dual(features @ features.T, y, C, balanced=balanced)
    return alpha @ features, b


def fit_constant(f: Tensor, y: Tensor) -> float:
    """The b for which f + b has the least log loss with both classes counting alike.

    ``f`` and ``y`` are `[n]`. By bisection of the derivative, which grows with b.
    """
    f, y = f.double(), y.double().to(f.device)

    def slope(b: float) -> float:
        p = torch.sigmoid(f + b)
        return float(p[y == 1].mean() + p[y == 0].mean()) - 1

    low, high = -float(f.max()) - 1.0, -float(f.min()) + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def second_moment(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """ΦᵀWΦ of features with a column of ones, `[k + 1, k + 1]` float64, summed in chunks.

    ``weights`` `[n]` are the diagonal of W, the identity when None.
    """
    k = features.shape[1]
    moment = torch.zeros(k + 1, k + 1, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), _CHUNK):
        block = torch.nn.functional.pad(features[start : start + _CHUNK], (0, 1), value=1.0)
        if weights is not None:
            block = block * weights[start : start + _CHUNK].sqrt().to(block)[:, None]
        moment += (block.T @ block).double()
    return moment


def _line_search(
    penalty: tuple[float, float, float],
    f: Tensor,
    step_f: Tensor,
    y: Tensor,
    cost: float | Tensor,
) -> tuple[float, float]:
    """The first size s among 1, ½, ¼… that does not raise the objective, and the value there.

    The objective is p₀ + p₁s + p₂s² plus the loss at f + s·step_f. Where only rounding is left
    and no size helps, the size is 0.
    """
    size, objective = 1.0, penalty[0] + _loss(f, y, cost)
    while size > 1e-8:
        value = penalty[0] + size * (penalty[1] + size * penalty[2])
        value += _loss(f + size * step_f, y, cost)
        if value <= objective:
            return size, value
        size /= 2
    return 0.0, objective


def _cholesky(matrix: Tensor, C: float) -> Tensor:
    """The factor of a matrix that is positive definite but for rounding.

    Rounding in the products that made the matrix is relative to its diagonal, and so is the
    smallest of 0, 1e-14, 1e-12… that is added there until the factorisation succeeds.
    """
    shift = 0.0
    while shift < 1e-3:
        shifted = matrix + shift * matrix.diagonal().diag() if shift else matrix
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not bool(failed):
            return factor
        shift = 100 * shift or 1e-14
    raise ConvergenceError(
        f"logistic regression at C={C} meets a matrix that is not positive definite in float64;"
        " use a smaller C (stronger regularisation) or inputs of unit scale."
    )


def _apply(features: Tensor, theta: Tensor) -> Tensor:
    return (features @ theta[:-1].to(features)).double() + theta[-1]


def _transpose(features: Tensor, v: Tensor) -> Tensor:
    return torch.cat([(v.to(features) @ features).double(), v.sum()[None]])


def _conjugate_gradients(
    hessian: Callable[[Tensor], Tensor], rhs: Tensor, factor: Tensor, most: int = 60
) -> tuple[Tensor, bool]:
    """H x = rhs, and whether the relative residual is 1e-6 in the preconditioned norm."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    z = torch.cholesky_solve(r[:, None], factor)[:, 0]
    direction, rz = z, float(r @ z)
    goal = rz * 1e-12
    for _ in range(most):
        if rz <= goal:
            return x, True
        product = hessian(direction)
        bend = float(direction @ product)
        if not bend > 0:  # only rounding is left
            break
        size = rz / bend
        x, r = x + size * direction, r - size * product
        z = torch.cholesky_solve(r[:, None], factor)[:, 0]
        previous, rz = rz, float(r @ z)
        direction = z + (rz / previous) * direction
    return x, rz <= goal


def _cost(y: Tensor, C: float, balanced: bool) -> float | Tensor:
    """What the loss of each example is multiplied with: a number, or `[n]`."""
    weights = class_weights(y) if balanced else None
    return C if weights is None else C * weights


def _prior_logit(y: Tensor, balanced: bool) -> float:
    return 0.0 if balanced else float(torch.logit(y.mean()))


def _loss(f: Tensor, y: Tensor, cost: float | Tensor) -> float:
    loss = torch.nn.functional.softplus(f) - y * f
    if isinstance(cost, Tensor):
        return float((cost * loss).sum())
    return cost * float(loss.sum())


def _not_converged(C: float) -> ConvergenceError:
    return ConvergenceError(
        f"logistic regression did not converge in {MAX_ITERATIONS} Newton steps at C={C};"
        " use a smaller C (stronger regularisation)."
    )
