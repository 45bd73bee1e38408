"""TensorSketch features, and what they collapse to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import contrast, queries
from odesteer.barriers import PolynomialBarrier, Raw, TensorSketchBarrier
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.barriers.random_features import TensorSketch
from odesteer.errors import InvalidInputError


def sketch_with_coefficients(degree, width, n_components, seed=0, c0=1.0):
    sketch = TensorSketch(degree, 0.3, c0, n_components).drawn(width, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return sketch, torch.randn(n_components, generator=generator, dtype=torch.float64)


def by_definition(sketch, x):
    """Circular convolution of count sketches, term by term (Pham and Pagh, 2013)."""
    extended = torch.cat([sketch.gamma**0.5 * x, torch.tensor([sketch.c0**0.5])])
    n = sketch.n_components
    features = torch.zeros(n, dtype=torch.float64)
    for index in torch.cartesian_prod(*[torch.arange(len(extended))] * sketch.degree).reshape(
        -1, sketch.degree
    ):
        table = torch.arange(sketch.degree)
        cell = int(sketch.hashes_[table, index].sum()) % n
        features[cell] += (sketch.signs_[table, index] * extended[index]).prod()
    return features


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("n_components", [8, 9])
def test_features_follow_the_definition(degree, n_components):
    sketch, _ = sketch_with_coefficients(degree, 4, n_components)
    x = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(sketch.features(x), by_definition(sketch, x))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_features_approximate_the_kernel(degree):
    """E[φ(x)·φ(y)] = (γ x·y + c₀)^p, and the spread falls with the number of components."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    kernel = float((0.3 * x @ y + 1) ** degree)
    products = []
    for seed in range(300):
        sketch = TensorSketch(degree, 0.3, 1.0, 64).drawn(6, seed)
        products.append(float(sketch.features(x) @ sketch.features(y)))
    products = torch.tensor(products)
    assert abs(float(products.mean()) - kernel) < 4 * float(products.std()) / 300**0.5


@settings(deadline=None, max_examples=15)
@given(
    degree=st.sampled_from([1, 2]),
    width=st.integers(1, 12),
    n_components=st.integers(1, 40),
    c0=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_low_degrees_collapse_to_a_quadratic(degree, width, n_components, c0, seed):
    sketch, w = sketch_with_coefficients(degree, width, n_components, seed, c0)
    collapsed = sketch.linear_in_features(w, 0.25)
    assert isinstance(collapsed, QuadraticFunction)
    x = torch.randn(5, width, dtype=torch.float64)
    torch.testing.assert_close(collapsed.value(x), sketch.value(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(collapsed.gradient(x), sketch.gradient(x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    degree=st.integers(1, 5),
    width=st.integers(1, 12),
    n_components=st.integers(1, 40),
    batch=st.sampled_from([(), (1,), (4,), (2, 3)]),
    seed=st.integers(0, 99),
)
def test_gradient_of_the_transforms_agrees_with_autograd(degree, width, n_components, batch, seed):
    sketch, w = sketch_with_coefficients(degree, width, n_components, seed)
    sketch.coefficients_, sketch.offset_ = w, 0.0
    x = torch.randn(*batch, width, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(sketch.value(x).sum(), x)
    torch.testing.assert_close(sketch.gradient(x.detach()), expected, rtol=1e-8, atol=1e-10)


def test_the_sketch_converges_to_the_exact_kernel():
    data, a = contrast(), queries(40)
    exact = PolynomialBarrier(C=10.0, rank_tolerance=0.0, folds=0).fit(*data).value(a)
    errors = [
        float(
            (TensorSketchBarrier(n_components=n, C=10.0, folds=0).fit(*data).value(a) - exact).std()
        )
        for n in (50, 800, 12800)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.1 * float(exact.std())


def test_hashes_are_drawn_by_seed():
    data = contrast(dtype=torch.float32)
    first, again, other = (
        TensorSketchBarrier(n_components=50, folds=0, seed=seed).fit(*data).value(queries())
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)


def test_a_fitted_barrier_is_the_one_from_its_tables():
    """The prior of unequal classes included."""
    positive, negative = contrast(dtype=torch.float64)
    fit = TensorSketchBarrier(degree=3, n_components=64, C=5.0, folds=0)
    fit.fit(positive, negative[:15])
    function = fit.function_
    prior = torch.log(torch.tensor(15 / 40, dtype=torch.float64))
    given_tables = TensorSketchBarrier.from_tables(
        function.hashes_,
        function.signs_,
        function.coefficients_,
        function.offset_ - float(prior),
        gamma=0.1,
        c0=1.0,
        class_counts=(40, 15),
        quantiles=(fit.upper_, fit.lower_),
    )
    torch.testing.assert_close(given_tables.value(queries()), fit.value(queries()))
    assert given_tables.threshold(1.5) == pytest.approx(fit.threshold(1.5))


def test_tables_that_do_not_fit_are_refused():
    hashes, signs = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5)
    arguments = {"gamma": 0.1, "c0": 1.0, "class_counts": (5, 5)}
    with pytest.raises(InvalidInputError, match="must both be"):
        TensorSketchBarrier.from_tables(hashes, signs[:, 1:], torch.ones(3), 0.0, **arguments)
    with pytest.raises(InvalidInputError, match=r"must lie in \[0, 3\)"):
        TensorSketchBarrier.from_tables(hashes + 3, signs, torch.ones(3), 0.0, **arguments)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"degree": 0}, "degree must be an integer"),
        ({"degree": 2.5}, "degree must be an integer"),
        ({"n_components": 0}, "n_components=0"),
        ({"gamma": -1.0}, "gamma=-1.0"),
    ],
)
def test_unusable_parameters(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        TensorSketchBarrier(**parameters, inputs=Raw(), folds=0).fit(*contrast())
