"""Potentials: values, gradients, units, calibration; they are not fitted to activations."""

import math

import pytest
import torch

from barrier_cases import contrast
from odesteer.barriers import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    Potential,
    QuadraticPotential,
)
from odesteer.errors import InvalidInputError, NotFittedError

KINDS = [LinearPotential(), GatedPotential(), QuadraticPotential(3), NeuralPotential(5)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
WIDTH = 6


def activations(n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 4 + 0.5 * torch.randn(n, WIDTH, generator=generator)


def learned(kind: Potential) -> Potential:
    begun = kind.begun(activations())
    generator = torch.Generator().manual_seed(4)
    leaves = begun.function_.leaves()
    return begun.adopt(
        {name: torch.randn(leaf.shape, generator=generator) for name, leaf in leaves.items()}
    )


@every_kind
def test_the_gradient_is_that_of_the_value(kind: Potential) -> None:
    barrier = learned(kind)
    a = activations(7).double().requires_grad_()
    (expected,) = torch.autograd.grad(barrier.value(a).sum(), a)
    torch.testing.assert_close(barrier.gradient(a).detach(), expected)


@every_kind
def test_one_activation_is_as_a_row_of_many(kind: Potential) -> None:
    barrier = learned(kind)
    a = activations(3).double()
    torch.testing.assert_close(barrier.value(a[1]), barrier.value(a)[1])
    torch.testing.assert_close(barrier.gradient(a[1]), barrier.gradient(a)[1])
    several = barrier.gradient(a.reshape(3, 1, WIDTH))
    torch.testing.assert_close(several[1, 0], barrier.gradient(a)[1])


@every_kind
def test_the_field_can_be_differentiated_in_every_tensor(kind: Potential) -> None:
    begun = learned(kind)
    leaves = {
        name: leaf.clone().requires_grad_() for name, leaf in begun.function_.leaves().items()
    }
    total = begun.adopt(leaves).gradient(activations(9)).square().sum()
    for gradient in torch.autograd.grad(total, list(leaves.values())):
        assert float(gradient.abs().sum()) > 0


@every_kind
def test_it_begins_all_but_flat(kind: Potential) -> None:
    begun = kind.begun(activations())
    assert float(begun.gradient(activations()).norm(dim=1).max()) < 1e-5
    assert math.isnan(begun.upper_)
    with pytest.raises(InvalidInputError, match="no meaning"):
        begun.threshold(1.0)


@every_kind
def test_scaling_and_calibration(kind: Potential) -> None:
    barrier, a = learned(kind), activations(5)
    before, slope = barrier.value(a), barrier.gradient(a)
    barrier.calibrate(2.5, -1.0, 3.0)
    torch.testing.assert_close(barrier.value(a), 2.5 * before - 1.0)
    torch.testing.assert_close(barrier.gradient(a), 2.5 * slope)
    assert barrier.threshold(1.0) == 3.0
    assert barrier.threshold(-2.0) == -6.0
    assert barrier.calibration_ == 2.5


def test_massive_coordinates_do_not_set_the_unit() -> None:
    a = activations(200)
    unit = LinearPotential().begun(a).inputs.scale_
    a[:, 2] = 3000 * torch.randn(200)
    assert LinearPotential().begun(a).inputs.scale_ == pytest.approx(unit, rel=0.3)
    assert unit == pytest.approx(math.sqrt(WIDTH) * 0.5, rel=0.3)


@every_kind
def test_they_are_not_fitted_to_activations(kind: Potential) -> None:
    fresh = kind.clone()
    with pytest.raises(InvalidInputError, match=r"lm\.fit\(odesteer\.EndToEnd"):
        fresh.fit(*contrast())
    with pytest.raises(NotFittedError):
        fresh.value(activations())


def test_what_cannot_be_begun() -> None:
    with pytest.raises(InvalidInputError, match="do not vary"):
        LinearPotential().begun(torch.ones(5, WIDTH))
    with pytest.raises(InvalidInputError, match="rank must be"):
        QuadraticPotential(0).begun(activations())
    with pytest.raises(InvalidInputError, match="hidden must be"):
        NeuralPotential(True).begun(activations())
