"""The exact kernel against brute force; forms of the logistic regression against each other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

from barrier_cases import contrast, queries
from odesteer.barriers import (
    Centred,
    KernelApproximation,
    LinearBarrier,
    PolynomialBarrier,
    Raw,
    TensorSketchBarrier,
    UnitSphere,
)
from odesteer.barriers.kernel_machine import ExactMachine, NystromMachine
from odesteer.barriers.logistic import fit_dual, fit_features, fit_primal
from odesteer.errors import ConvergenceError, InvalidInputError


def labels(positive, negative):
    return np.r_[np.ones(len(positive)), np.zeros(len(negative))]


def monomials(x, degree, gamma, c0):
    """Features whose inner product is (γ x·y + c₀)^p, by the multinomial theorem."""
    powers = PolynomialFeatures(degree).fit(x)
    exponents = powers.powers_
    factorial = np.vectorize(lambda k: float(np.prod(np.arange(1, k + 1))))
    rest = degree - exponents.sum(axis=1)
    count = factorial(np.array(degree)) / factorial(exponents).prod(axis=1) / factorial(rest)
    return powers.transform(x) * np.sqrt(count * gamma ** exponents.sum(axis=1) * c0**rest)


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    ("degree", "inputs", "gamma", "c0"),
    [
        (1, UnitSphere(), 0.1, 1.0),
        (2, UnitSphere(), 0.1, 1.0),
        (2, Raw(), 0.05, 0.5),
        (2, Centred(), 1.0, 0.0),
        (3, UnitSphere(), 0.5, 1.0),
        (4, Centred(), 1.0, 1.0),
    ],
)
def test_exact_kernel_agrees_with_explicit_features(degree, inputs, gamma, c0, C):
    """scikit-learn's logistic regression on all monomials, which the kernel never forms."""
    positive, negative = contrast(30, width=5)
    negative = negative[:20]
    barrier = PolynomialBarrier(degree, gamma, c0, C, inputs, rank_tolerance=0.0, folds=0)
    barrier.fit(positive, negative)
    x = barrier.inputs(torch.cat([positive, negative])).numpy()
    features = monomials(x, degree, gamma, c0)
    gram = (gamma * x @ x.T + c0) ** degree
    np.testing.assert_allclose(features @ features.T, gram, rtol=1e-9, atol=1e-12)
    model = LogisticRegression(
        C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000, class_weight="balanced"
    )
    model.fit(features, labels(positive, negative))
    a = queries(width=5)
    logit = model.decision_function(monomials(barrier.inputs(a).numpy(), degree, gamma, c0))
    torch.testing.assert_close(barrier.value(a), torch.from_numpy(logit), rtol=1e-5, atol=1e-6)


def test_dual_form_minimises_its_objective():
    """Against a general-purpose minimiser of ½αᵀKα + C Σ log(1 + exp(-yf)) over α and b."""
    positive, negative = contrast(25, width=4)
    x = torch.cat([positive, negative])
    y = torch.from_numpy(labels(positive, negative))
    gram, C = (0.3 * x @ x.T + 1) ** 2, 0.7
    # α = Lw makes the problem as well conditioned as the feature form.
    root = torch.linalg.cholesky(gram + 1e-9 * torch.eye(50))

    def objective(theta):
        w, b = torch.from_numpy(theta[:-1]), theta[-1]
        f = root @ w + b
        loss = 0.5 * float(w @ w) + C * float((torch.nn.functional.softplus(f) - y * f).sum())
        slope = C * (torch.sigmoid(f) - y)
        return loss, np.r_[(w + root.T @ slope).numpy(), float(slope.sum())]

    best = minimize(objective, np.zeros(51), jac=True, method="BFGS", options={"gtol": 1e-8})
    f = (root @ torch.from_numpy(best.x[:-1]) + best.x[-1]).numpy()
    alpha, b = fit_dual(gram, y, C)
    np.testing.assert_allclose((gram @ alpha + b).numpy(), f, atol=1e-5)


@pytest.mark.parametrize("C", [1e-6, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("shape", [(60, 8), (30, 90)])
def test_dual_and_primal_forms_agree(shape, C):
    n, k = shape
    features = torch.randn(n, k, dtype=torch.float64)
    y = (torch.arange(n) < n // 3).double()
    features[: n // 3] += 0.2
    alpha, dual_b = fit_dual(features @ features.T, y, C)
    w, primal_b = fit_primal(features, y, C)
    torch.testing.assert_close(alpha @ features, w, rtol=1e-4, atol=1e-6)
    assert dual_b == pytest.approx(primal_b, rel=1e-4, abs=1e-6)
    assert abs(float(alpha.sum())) < 1e-8 * (1 + float(alpha.abs().sum()))
    chosen, chosen_b = fit_features(features, y, C)
    torch.testing.assert_close(chosen, w, rtol=1e-4, atol=1e-6)
    assert chosen_b == pytest.approx(primal_b, rel=1e-4, abs=1e-6)


def test_primal_form_in_float32_features():
    """As for large sets of features, which are not taken to float64."""
    features = torch.randn(400, 30)
    y = (features[:, 0] + torch.randn(400) > 0).double()
    expected, b = fit_primal(features.double(), y, 1.0)
    import odesteer.barriers.logistic as logistic

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "_MOST_IN_DOUBLE", 0)
        w, b32 = fit_primal(features, y, 1.0)
    torch.testing.assert_close(w, expected, rtol=1e-4, atol=1e-5)
    assert b32 == pytest.approx(b, abs=1e-5)


def test_primal_form_where_the_first_preconditioner_is_useless():
    """Separable with little regularisation: p(1 - p) is far below its bound of one quarter."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 120, generator=generator, dtype=torch.float64)
    features *= torch.logspace(-3, 1, 120, dtype=torch.float64)
    y = (features[:, -1] > 0).double()
    alpha, _ = fit_dual(features @ features.T, y, 1e5)
    w, _ = fit_primal(features, y, 1e5)
    torch.testing.assert_close(w, alpha @ features, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(2, 12),
    width=st.integers(1, 20),
    exponent=st.floats(-8, 6),
    spread=st.floats(0, 3),
    seed=st.integers(0, 1000),
)
def test_no_regression_breaks_down(n, width, exponent, spread, seed):
    """Tiny or separable sets, badly scaled features: a stationary point, in both forms."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * n, width, generator=generator, dtype=torch.float64)
    features *= torch.logspace(-spread, spread, width, dtype=torch.float64)
    y = (torch.arange(2 * n) < n).double()
    C = 10.0**exponent
    w, b = fit_primal(features, y, C)
    alpha, dual_b = fit_dual(features @ features.T, y, C)
    for weight, intercept in ((w, b), (alpha @ features, dual_b)):
        f = features @ weight + intercept
        slope = weight + C * features.T @ (torch.sigmoid(f) - y)
        scale = weight.norm() + C * features.abs().sum()
        assert float(slope.norm() / scale) < 1e-4
        assert bool(torch.isfinite(weight).all())


def test_a_matrix_that_cannot_be_factored_is_reported():
    gram = -torch.eye(6, dtype=torch.float64)
    y = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="smaller C"):
        fit_dual(gram, y, 100.0)


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan"), float("inf")])
def test_regularisation_must_be_positive(C):
    for barrier in (PolynomialBarrier(C=C, folds=0), LinearBarrier(C=C), TensorSketchBarrier(C=C)):
        with pytest.raises(InvalidInputError, match="C must be a positive number"):
            barrier.fit(*contrast())


@pytest.mark.parametrize("inputs", [UnitSphere(), Centred()])
def test_landmarks_on_every_example_give_the_exact_kernel(inputs):
    """Nyström with n landmarks is the exact machine; with fewer it comes close."""
    positive, negative = contrast(60)
    gamma = 0.1 if isinstance(inputs, UnitSphere) else 1.0
    common = {"inputs": inputs, "gamma": gamma, "rank_tolerance": 0.0, "folds": 0}
    exact = PolynomialBarrier(**common).fit(positive, negative)
    a = queries(20)
    every = PolynomialBarrier(max_exact=10, n_landmarks=120, **common).fit(positive, negative)
    # Features are float32.
    torch.testing.assert_close(every.value(a), exact.value(a), rtol=1e-4, atol=1e-4)
    # Quadratics of 12 coordinates have 91 degrees of freedom; more landmarks add nothing.
    most = PolynomialBarrier(max_exact=10, n_landmarks=95, **common).fit(positive, negative)
    torch.testing.assert_close(most.value(a), exact.value(a), rtol=1e-3, atol=1e-3)
    some = PolynomialBarrier(max_exact=10, n_landmarks=40, **common).fit(positive, negative)
    difference = float((some.value(a) - exact.value(a)).norm() / exact.value(a).norm())
    assert 1e-6 < difference < 0.3


def test_machines_agree_on_parts_of_the_examples():
    """Cross-validation fits to part of the rows of one Gram matrix, or of one set of features."""
    positive, negative = contrast(30)
    x = torch.cat([positive, negative])
    x = x / x.norm(dim=1, keepdim=True)
    y = torch.from_numpy(labels(positive, negative))

    def kernel(u, v):
        return (0.1 * u @ v.T + 1) ** 2

    rows = torch.rand(60, generator=torch.Generator().manual_seed(0)) < 0.7
    exact, landmarks = ExactMachine(kernel, x), NystromMachine(kernel, x, 60, seed=0)
    predictions = []
    for machine in (exact, landmarks):
        part = machine.fit(rows, y[rows], 10.0)
        predictions.append(machine.predict(part, ~rows))
    torch.testing.assert_close(predictions[0], predictions[1], rtol=1e-3, atol=1e-4)
    alone = ExactMachine(kernel, x[rows]).fit(None, y[rows], 10.0)
    expected = kernel(x[~rows], x[rows]) @ alone.weights + alone.intercept
    torch.testing.assert_close(predictions[0], expected)


def test_landmarks_are_drawn_by_seed():
    data = contrast(60)
    parameters = {"max_exact": 10, "n_landmarks": 12, "folds": 0}
    first, again, other = (
        PolynomialBarrier(seed=seed, **parameters).fit(*data).value(queries()) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-6)


def test_regularisation_is_chosen_on_held_out_groups():
    """Six noisy copies of each example: only folds that keep copies together see the overfit."""
    positive, negative = contrast(20)
    noise = torch.randn(2, 120, 12, dtype=torch.float64) * 0.01
    copies = (positive.repeat(6, 1) + noise[0], negative.repeat(6, 1) + noise[1])
    owners = torch.arange(20).repeat(6)
    grid = (1e-2, 1.0, 1e2, 1e4, 1e6)
    grouped = PolynomialBarrier(C=grid).fit(*copies, groups=(owners, owners + 20))
    split = PolynomialBarrier(C=grid).fit(*copies)
    assert grouped.C_ in grid
    assert grouped.C_ < split.C_
    # The chosen C is the one of least held-out loss.
    losses = [
        PolynomialBarrier(C=C).fit(*copies, groups=(owners, owners + 20)).held_out_["log_loss"]
        for C in grid
    ]
    assert grid[int(np.argmin(losses))] == grouped.C_
    assert grouped.held_out_["log_loss"] == pytest.approx(min(losses))


def test_choosing_needs_enough_examples():
    positive, negative = contrast(2)
    with pytest.raises(InvalidInputError, match="too few"):
        PolynomialBarrier(C=(1.0, 10.0)).fit(positive, negative)
    with pytest.raises(InvalidInputError, match="empty"):
        PolynomialBarrier(C=()).fit(*contrast())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"degree": 5}, "degree must be 1, 2, 3 or 4, not 5"),
        ({"gamma": 0.0}, "gamma=0.0"),
        ({"c0": -1.0}, "c0=-1.0"),
        ({"rank_tolerance": 1.0}, "rank_tolerance must be in"),
        ({"max_exact": 10, "n_landmarks": 0}, "n_landmarks at least 1"),
    ],
)
def test_unusable_parameters(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        PolynomialBarrier(**parameters).fit(*contrast())


def test_linear_barrier_is_logistic_regression():
    positive, negative = contrast(50)
    barrier = LinearBarrier(C=0.3, inputs=Raw(), folds=0).fit(positive, negative[:25])
    x, y = torch.cat([positive, negative[:25]]).numpy(), np.r_[np.ones(50), np.zeros(25)]
    model = LogisticRegression(
        C=0.3, solver="newton-cholesky", tol=1e-12, class_weight="balanced"
    ).fit(x, y)
    a = queries()
    expected = torch.from_numpy(model.decision_function(a.numpy()))
    torch.testing.assert_close(barrier.value(a), expected, rtol=1e-6, atol=1e-8)
    expected_slope = torch.from_numpy(model.coef_).expand(len(a), -1)
    torch.testing.assert_close(barrier.gradient(a), expected_slope, rtol=1e-6, atol=1e-8)


def test_the_approximation_is_one_object_and_its_parameters_are_taken_one_by_one():
    barrier = PolynomialBarrier(rank_tolerance=0.0, max_exact=20)
    assert barrier.approximation.max_exact == 20
    assert repr(barrier) == repr(
        PolynomialBarrier(approximation=KernelApproximation(0.0, max_exact=20))
    )
    assert barrier.with_params(n_landmarks=7).approximation.rank_tolerance == 0.0
    assert barrier.set_params(approximation__n_landmarks=9).approximation.n_landmarks == 9
    assert PolynomialBarrier().approximation.max_exact == 4000  # not shared
    assert len(PolynomialBarrier.parameter_names()) == 7
    with pytest.raises(InvalidInputError, match="approximation must be a KernelApproximation"):
        PolynomialBarrier(approximation=3).fit(*contrast())
