"""Several inputs: the first whose held-out AUC has three quarters of the best one's margin."""

import pytest
import torch

import odesteer
from barrier_cases import contrast
from odesteer import ODESteer, OneStep
from odesteer.barriers import (
    Centred,
    PolynomialBarrier,
    ProductBarrier,
    Raw,
    Standardized,
    UnitSphere,
)
from odesteer.errors import InvalidInputError


def massive(factor=1e3):
    """The same activations with one coordinate that holds nearly all of the norm."""
    scale = torch.ones(contrast()[0].shape[1])
    scale[5] = factor
    return [side * scale for side in contrast()]


def test_the_default_is_the_sphere_where_it_sees():
    data = contrast()
    plain, sphere = PolynomialBarrier().fit(*data), PolynomialBarrier(inputs=UnitSphere())
    sphere.fit(*data)
    assert isinstance(plain.inputs_, UnitSphere)
    assert torch.equal(plain.value(data[0]), sphere.value(data[0]))
    assert (plain.upper_, plain.held_out_) == (sphere.upper_, sphere.held_out_)


@pytest.mark.parametrize("method", [ODESteer(), OneStep()])
def test_the_default_sees_behind_a_massive_coordinate(method):
    sphere = PolynomialBarrier(inputs=UnitSphere()).fit(*massive())
    method = method.clone().fit(*massive())
    reference = PolynomialBarrier(inputs=UnitSphere()).fit(*contrast())
    auc = method.barrier.held_out_["auc"]
    assert auc > sphere.held_out_["auc"] + 0.1
    assert auc > reference.held_out_["auc"] - 0.02
    alone = PolynomialBarrier(inputs=Standardized(1.0)).fit(*massive())
    a = massive()[1]
    assert torch.equal(method.barrier.value(a), alone.value(a))
    assert bool(torch.isfinite(method.steer(a)).all())


def test_of_several_the_first_sufficient_one_is_taken():
    blind_last = PolynomialBarrier(inputs=[Standardized(1.0), UnitSphere()]).fit(*massive())
    assert isinstance(blind_last.inputs_, Centred)  # what quadratic functions of these become
    third = PolynomialBarrier(degree=3, inputs=(UnitSphere(), Raw(), Standardized()))
    assert isinstance(third.fit(*massive()).inputs_, (Raw, Standardized))


def test_fits_without_folds_inside_others_keep_the_choice():
    product = ProductBarrier((PolynomialBarrier(), PolynomialBarrier(C=3.0))).fit(*massive())
    alone = PolynomialBarrier().fit(*massive())
    assert [part.chosen_ for part in product.barriers] == [1, 1]
    assert abs(product.held_out_["auc"] - alone.held_out_["auc"]) < 0.03


def test_without_folds_there_is_nothing_to_choose_by():
    assert isinstance(PolynomialBarrier(folds=0).fit(*massive()).inputs_, UnitSphere)


def test_the_constructor_keeps_what_it_was_given():
    barrier = PolynomialBarrier().fit(*massive())
    assert len(barrier.get_params(deep=False)["inputs"]) == 2
    assert repr(barrier) == repr(barrier.clone()) == "PolynomialBarrier()"


def test_several_inputs_are_saved_and_loaded(tmp_path):
    steerer = ODESteer().fit(*massive())
    odesteer.save(steerer, tmp_path / "default.safetensors")
    loaded = odesteer.load(tmp_path / "default.safetensors").method
    assert repr(loaded) == "ODESteer()"
    assert torch.equal(loaded.steer(massive()[1]), steerer.steer(massive()[1]))


@pytest.mark.parametrize("inputs", [(), (UnitSphere(), 3), 3, "sphere"])
def test_what_are_no_inputs_is_refused(inputs):
    with pytest.raises(InvalidInputError, match="inputs must be Inputs"):
        PolynomialBarrier(inputs=inputs).fit(*contrast())
