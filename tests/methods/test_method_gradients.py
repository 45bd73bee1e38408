"""Gradients of every method and quantity against central differences, in float64."""

import pytest
import torch
from method_cases import METHODS, steering
from torch import Tensor

from barrier_cases import queries
from odesteer.methods import Amount, Method

# Values of each quantity for four rows; some are reached at the start, some in neither way.
VALUES = {
    "level": (0.5, -0.6, 1.5, 1.0),
    "T": (0.3, -0.2, 0.7, 1.0),
    "strength": (0.1, -0.2, 0.3, 0.4),
    "interpolation": (0.2, 0.4, 0.6, 0.9),
}
CASES = [(name, quantity) for name, method in METHODS.items() for quantity in method.quantities]


def steered(method: Method, a: Tensor, quantity: str, values: Tensor) -> Tensor:
    return method.solve(a, Amount(quantity, values)).state


@pytest.mark.parametrize(("name", "quantity"), CASES, ids=lambda case: case)
def test_gradients(name: str, quantity: str) -> None:
    """With respect to activations and to the amount for each row."""
    method, a = steering(name), queries(4)
    values = torch.tensor(VALUES[quantity], dtype=torch.float64)
    if not any(method.quantities):
        pytest.skip("nothing to ask for")
    generator = torch.Generator().manual_seed(3)
    weights, direction = torch.randn(2, *a.shape, generator=generator, dtype=torch.float64)
    x, amount = a.clone().requires_grad_(), values.clone().requires_grad_()
    moved = (steered(method, x, quantity, amount) * weights).sum()
    by_a, by_amount = torch.autograd.grad(moved, (x, amount), allow_unused=True)
    assert by_a is not None
    assert bool(torch.isfinite(by_a).all())

    def slope(da: Tensor | float, dv: Tensor | float, size: float) -> Tensor:
        ahead, behind = (
            steered(method, a + s * da, quantity, values + s * dv) for s in (size, -size)
        )
        found: Tensor = ((ahead - behind) * weights).sum(1) / (2 * size)
        return found

    size = 1e-6
    torch.testing.assert_close(
        (by_a * direction).sum(1), slope(direction, 0.0, size), rtol=2e-3, atol=2e-5
    )
    by_amount = torch.zeros_like(values) if by_amount is None else by_amount
    assert bool(torch.isfinite(by_amount).all())
    torch.testing.assert_close(by_amount, slope(0.0, 1.0, size), rtol=2e-3, atol=2e-5)
