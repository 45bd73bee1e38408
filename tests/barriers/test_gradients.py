"""Values and gradients of every barrier."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier_cases import (
    BARRIERS,
    WIDTH,
    contrast,
    fitted,
    fitted_massive,
    massive_contrast,
    massive_queries,
    queries,
)
from odesteer.barriers import UnitSphere
from odesteer.errors import InvalidInputError

every_barrier = pytest.mark.parametrize("name", list(BARRIERS))


@every_barrier
def test_gradient_agrees_with_autograd(name):
    barrier, a = fitted(name), queries().requires_grad_()
    value = barrier.value(a)
    (expected,) = torch.autograd.grad(value.sum(), a)
    torch.testing.assert_close(barrier.gradient(a.detach()), expected, rtol=1e-9, atol=1e-12)
    assert float(expected.norm(dim=1).min()) > 1e-6


@every_barrier
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10**6), size=st.floats(0.3, 5.0))
def test_gradient_agrees_with_finite_differences(name, seed, size):
    barrier = fitted(name)
    generator = torch.Generator().manual_seed(seed)
    a = size * torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    direction = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    step = 1e-5 * float(a.norm())
    ends = torch.stack([a + step * direction, a - step * direction])
    ahead, behind = barrier.value(ends).tolist()
    slope = float(barrier.gradient(a) @ direction)
    scale = float(barrier.gradient(a).norm() * direction.norm())
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6 * scale + 1e-9)


@every_barrier
def test_value_and_gradient_are_those_of_the_single_calls(name):
    barrier = fitted(name, torch.float32)
    a = queries(dtype=torch.float32)
    value, gradient = barrier.value_and_gradient(a)
    assert torch.equal(value, barrier.value(a))
    assert torch.equal(gradient, barrier.gradient(a))


@every_barrier
def test_batches_are_row_by_row(name):
    barrier, a = fitted(name), queries(12)
    value, gradient = barrier.value(a), barrier.gradient(a)
    assert value.shape == (12,)
    assert gradient.shape == a.shape
    for i in range(12):
        torch.testing.assert_close(barrier.value(a[i]), value[i])
        torch.testing.assert_close(barrier.gradient(a[i]), gradient[i])
    cube = a.reshape(3, 4, WIDTH)
    torch.testing.assert_close(barrier.value(cube), value.reshape(3, 4))
    torch.testing.assert_close(barrier.gradient(cube), gradient.reshape(3, 4, WIDTH))


@every_barrier
def test_an_empty_batch_is_empty(name):
    barrier, a = fitted(name), queries()[:0]
    assert barrier.value(a).shape == (0,)
    assert barrier.gradient(a).shape == (0, WIDTH)


@every_barrier
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_computed_in_float32(name, dtype):
    barrier = fitted(name)
    a = queries().to(dtype)
    value, gradient = barrier.value_and_gradient(a)
    assert value.dtype == gradient.dtype == torch.float32
    scale = float(barrier.value(a.double()).abs().max()) + 1
    expected, slope = barrier.value_and_gradient(a.double())
    assert float((value - expected).abs().max()) < 1e-4 * scale
    assert float((gradient - slope).norm() / slope.norm()) < 1e-4


@every_barrier
def test_gradients_under_every_gradient_mode(name):
    barrier, a = fitted(name), queries()
    expected = barrier.gradient(a)
    with torch.no_grad():
        torch.testing.assert_close(barrier.gradient(a), expected, rtol=1e-12, atol=0)
    with torch.inference_mode():
        inside = queries()
        torch.testing.assert_close(barrier.gradient(inside), expected, rtol=1e-12, atol=0)
        value, gradient = barrier.value_and_gradient(inside)
    assert not value.requires_grad
    assert not gradient.requires_grad


@every_barrier
def test_gradients_can_be_differentiated(name):
    """The gradient of a gradient, as a penalty on the field needs it: the Hessian is symmetric."""
    barrier = fitted(name)
    a = queries(1)[0].requires_grad_()
    left, right = queries(3)[1:]
    products = []
    for v in (left, right):
        (product,) = torch.autograd.grad(
            barrier.gradient(a) @ v + 0 * a.sum(), a, create_graph=False
        )
        products.append(product)
    assert float(products[0] @ right) == pytest.approx(float(products[1] @ left), abs=1e-9)


@every_barrier
def test_wrong_widths_are_refused(name):
    barrier = fitted(name)
    with pytest.raises(InvalidInputError, match=f"fitted on width {WIDTH}"):
        barrier.value(torch.zeros(2, WIDTH + 1))
    with pytest.raises(InvalidInputError, match="last dimension"):
        barrier.gradient(torch.tensor(1.0))


@pytest.mark.parametrize(
    "name",
    [n for n, case in BARRIERS.items() if isinstance(getattr(case, "inputs", None), UnitSphere)],
)
def test_functions_of_the_direction(name):
    """Constant along rays, with gradients tangent to the sphere; defined at the origin."""
    barrier, a = fitted(name), queries()
    torch.testing.assert_close(barrier.value(7 * a), barrier.value(a))
    gradient = barrier.gradient(a)
    radial = (gradient * a).sum(1) / (gradient.norm(dim=1) * a.norm(dim=1))
    assert float(radial.abs().max()) < 1e-10
    origin = torch.zeros(WIDTH, dtype=torch.float64)
    assert bool(torch.isfinite(barrier.value(origin)))
    assert torch.equal(barrier.gradient(origin), origin)


@every_barrier
def test_values_tell_the_classes_apart(name):
    """Without this the tests of gradients might pass on constants."""
    barrier = fitted(name)
    positive, negative = contrast(seed=9)
    above = (barrier.value(positive)[:, None] > barrier.value(negative)).double().mean()
    assert float(above) > 0.7


@every_barrier
def test_a_massive_coordinate(name):
    """One coordinate a thousand times larger, as in early layers of language models."""
    barrier, a = fitted_massive(name), massive_queries().requires_grad_()
    value = barrier.value(a)
    (expected,) = torch.autograd.grad(value.sum(), a)
    a = a.detach()
    gradient = barrier.gradient(a)
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10 * scale)
    # By finite differences too, in steps that are as large as the activations vary.
    steps = 1e-5 * massive_contrast()[1].std(dim=0)
    for i in range(WIDTH):
        step = torch.nn.functional.one_hot(torch.tensor(i), WIDTH) * steps
        slope = (barrier.value(a + step) - barrier.value(a - step)) / (2 * steps[i])
        torch.testing.assert_close(slope, expected[:, i], rtol=1e-4, atol=1e-6 * scale)
    single = barrier.to(dtype=torch.float32).value(a.float())
    largest = float(value.detach().abs().max())
    torch.testing.assert_close(single.double(), value.detach(), rtol=1e-2, atol=1e-3 * largest)
