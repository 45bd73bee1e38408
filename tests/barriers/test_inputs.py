"""Inputs of barriers: what they leave unchanged, and how they scale."""

import pytest
import torch

from barrier_cases import MASSIVE, contrast, massive_contrast, queries
from odesteer.barriers import (
    Barrier,
    Centred,
    LinearBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    Standardized,
    StandardizedSphere,
    UnitSphere,
)
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.errors import InvalidInputError

KINDS = {"one-scale": StandardizedSphere(), "coordinatewise": StandardizedSphere(True)}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


def barriers(kind: str) -> list[Barrier]:
    inputs = KINDS[kind]
    return [
        LinearBarrier(10.0, inputs, folds=0),
        PolynomialBarrier(C=10.0, inputs=inputs, folds=0, rank_tolerance=0.0),
        PolynomialBarrier(3, C=10.0, inputs=inputs, folds=0),
        NeuralBarrier((4,), max_epochs=3, inputs=inputs, folds=0),
    ]


@every_kind
def test_standardised_directions_have_mean_zero_and_square_one(kind):
    a = torch.cat(contrast(200))
    inputs = KINDS[kind].clone().fit(a)
    x = inputs(a)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(12).double(), atol=1e-12, rtol=0)
    assert float(x.square().sum(dim=1).mean()) == pytest.approx(1)
    if kind == "coordinatewise":
        torch.testing.assert_close(x.square().mean(dim=0), torch.full((12,), 1 / 12).double())


@every_kind
def test_lengths_of_activations_change_nothing(kind):
    positive, negative = contrast()
    a, lengths = queries(), torch.linspace(0.1, 40, 40, dtype=torch.float64)[:, None]
    for barrier in barriers(kind):
        plain = barrier.clone().fit(positive, negative)
        scaled = barrier.clone().fit(1e3 * lengths * positive, lengths.flip(0) * negative)
        torch.testing.assert_close(scaled.value(a), plain.value(a), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(plain.value(7 * a), plain.value(a), rtol=1e-6, atol=1e-8)
        gradient = plain.gradient(a)
        assert float((gradient * a).sum(dim=1).abs().max()) < 1e-8 * float(gradient.norm())


def test_rotations_change_nothing_but_the_coordinates():
    generator = torch.Generator().manual_seed(3)
    q = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    for barrier in barriers("one-scale")[:3]:
        plain = barrier.clone().fit(*contrast())
        turned = barrier.clone().fit(*(side @ q for side in contrast()))
        torch.testing.assert_close(turned.value(queries() @ q), plain.value(queries()))


def squeezed(width: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions close together, as in language models: a common part and a small rest."""
    generator = torch.Generator().manual_seed(5)
    rest = torch.randn(2, 100, width, generator=generator, dtype=torch.float64)
    rest[0, :, :3] += 1.5
    common = torch.ones(width, dtype=torch.float64)
    return common + spread * rest[0], common + spread * rest[1]


@every_kind
def test_how_far_directions_are_apart_changes_little(kind):
    """On plain directions the same C regularises the more, the closer they are."""

    def steepness(inputs, spread):
        barrier = LinearBarrier(10.0, inputs, folds=0).fit(*squeezed(20, spread))
        return float(barrier.value(squeezed(20, spread)[0]).mean())

    near, far = steepness(KINDS[kind], 1e-3), steepness(KINDS[kind], 0.1)
    assert near == pytest.approx(far, rel=0.1)
    assert steepness(UnitSphere(), 1e-3) < 0.1 * steepness(UnitSphere(), 0.1)


def test_one_coordinate_of_a_thousand_hides_nothing():
    """Two large coordinates that say nothing about the class."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, 300, 40, generator=generator)
    x[0, :, 3:9] += 1.0
    x[:, :, :2] = 1e3 + 300 * x[:, :, :2]
    data, plain = (x[0], x[1]), (x[0, :, 2:], x[1, :, 2:])
    best = LinearBarrier().fit(*plain).held_out_["auc"]
    for barrier in (
        LinearBarrier(10.0, StandardizedSphere(True)),
        PolynomialBarrier(C=10.0, inputs=StandardizedSphere(True)),
        PolynomialBarrier(),  # chooses standardised activations
    ):
        assert barrier.fit(*data).held_out_["auc"] > best - 0.03
    assert PolynomialBarrier(inputs=UnitSphere()).fit(*data).held_out_["auc"] < best - 0.2


@every_kind
def test_quadratic_functions_are_kept_as_functions_of_directions(kind):
    """So that flows are as fast as those of plain directions, and equal what was fitted."""
    linear, quadratic, cubic, network = (b.fit(*contrast()) for b in barriers(kind))
    for barrier in (linear, quadratic):
        assert isinstance(barrier.inputs, UnitSphere)
        assert isinstance(barrier.get_params()["inputs"], StandardizedSphere)
        assert barrier.restrict(queries()) is not None
    for barrier in (cubic, network):
        assert isinstance(barrier.inputs, StandardizedSphere)
    generator = torch.Generator().manual_seed(9)
    basis = torch.linalg.qr(torch.randn(12, 5, generator=generator, dtype=torch.float64))[0]
    curvature, slope = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    a, inputs = queries(), KINDS[kind].clone().fit(torch.cat(contrast()))
    for basis_, size in ((basis, 5), (None, 12)):
        pad = (0, size - 5)
        function = QuadraticFunction.of(
            basis_,
            torch.nn.functional.pad(curvature, pad),
            torch.nn.functional.pad(slope, pad),
            0.3,
        )
        merged_inputs, merged = inputs.merged(function)
        x, u = inputs(a), merged_inputs(a)
        torch.testing.assert_close(merged.value(u), function.value(x))
        torch.testing.assert_close(
            merged_inputs.pull_back(a, u, merged.gradient(u)),
            inputs.pull_back(a, x, function.gradient(x)),
        )


@every_kind
def test_directions_that_are_all_the_same(kind):
    a = torch.linspace(1, 2, 9)[:, None] * torch.arange(1.0, 5)
    with pytest.raises(InvalidInputError, match="directions of the activations do not vary"):
        KINDS[kind].clone().fit(a)


def test_a_constant_coordinate_gets_no_weight():
    positive, negative = contrast()
    positive[:, 2], negative[:, 2] = 0.0, 0.0
    barrier = LinearBarrier(10.0, StandardizedSphere(True)).fit(positive, negative)
    moved = queries()
    moved[:, 2] = 1e-3
    plain = moved.clone()
    plain[:, 2] = 0
    torch.testing.assert_close(barrier.value(moved), barrier.value(plain), rtol=1e-3, atol=1e-3)


def test_regularisation_is_chosen_on_held_out_groups():
    data = contrast(60)
    barrier = LinearBarrier((1e-3, 1.0, 1e4), StandardizedSphere()).fit(*data)
    alone = [LinearBarrier(C, StandardizedSphere()).fit(*data) for C in (1e-3, 1.0, 1e4)]
    losses = [each.held_out_["log_loss"] for each in alone]
    best = alone[losses.index(min(losses))]
    assert barrier.C_ == best.C_ < 1e4
    assert barrier.held_out_ == best.held_out_
    assert LinearBarrier((1.0, 2.0), folds=0).fit(*data).held_out_ is not None
    for C, message in ((), "empty sequence"), ((1.0, 2.0), "too few groups"):
        with pytest.raises(InvalidInputError, match=message):
            LinearBarrier(C).fit(data[0][:2], data[1][:2])


@pytest.mark.parametrize("damping", [0.0, 1.0, 30.0])
def test_standardised_coordinates(damping):
    a = torch.cat(massive_contrast(100))
    inputs = Standardized(damping).fit(a)
    x = inputs(a)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(12).double(), atol=1e-9, rtol=0)
    assert float(x.square().sum(dim=1).mean()) == pytest.approx(1)
    share = x.square().mean(dim=0)
    variance = a.var(dim=0, correction=0)
    expected = variance / (variance + damping * variance.median())
    torch.testing.assert_close(share / share.sum(), expected / expected.sum())
    constant = a.clone()
    constant[:, 2] = 5.0  # as a coordinate that is always the same
    assert bool(torch.isfinite(Standardized(damping).fit(constant)(a)).all())
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="damping must be"):
            Standardized(wrong).fit(a)


def test_a_massive_coordinate_hides_nothing_from_standardised_inputs():
    """All but the massive coordinate tell the classes apart; `Centred` inputs hardly see them."""
    positive, negative = massive_contrast(100)
    # The massive coordinate itself says nothing.
    negative[:, MASSIVE] = positive[torch.randperm(100), MASSIVE]
    auc = {}
    for inputs in (Centred(), Standardized(), Standardized(1.0)):
        barrier = PolynomialBarrier(C=10.0, inputs=inputs).fit(positive, negative)
        assert barrier.held_out_ is not None
        auc[repr(inputs)] = barrier.held_out_["auc"]
        assert isinstance(barrier.inputs, Centred)  # so flows have their compiled form
    assert auc["Standardized()"] > 0.85
    assert auc["Standardized(damping=1.0)"] > 0.85
    assert auc["Centred()"] < 0.8
