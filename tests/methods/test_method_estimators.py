"""The contract of steering methods as estimators: fit, clone, parameters, gradient modes."""

import math

import pytest
import torch
from method_cases import METHODS, amounts, every_method, steering

from barrier_cases import WIDTH, contrast, queries
from odesteer.artifact import load, save
from odesteer.errors import InvalidInputError, NotFittedError
from odesteer.estimator import Parametrised

MODES = {
    "part of a graph": (torch.enable_grad, lambda a: 1.0 * a.clone().requires_grad_()),
    "without gradients": (torch.no_grad, lambda a: a.clone().requires_grad_()),
    "inference": (torch.inference_mode, torch.clone),
}


def tensors_of(value):
    """Every tensor that a fitted object has learned, in whatever it holds."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Parametrised):
        value = vars(value)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_of(item)]
    return []


@every_method
@pytest.mark.parametrize("mode", list(MODES))
def test_fit_and_backward_in_every_gradient_mode(name, mode, tmp_path):
    context, made = MODES[mode]
    with context():
        method = METHODS[name].clone().fit(*map(made, contrast()))
        copied = method.to(dtype=torch.float32)
        save(method, tmp_path / "method.safetensors")
        loaded = load(tmp_path / "method.safetensors").method
    for fitted in (method, copied, loaded):
        for tensor in tensors_of(fitted):
            assert not tensor.requires_grad
            assert not tensor.is_inference()
        if fitted is not copied:
            assert torch.equal(fitted.steer(queries()), steering(name).steer(queries()))
        a = queries().requires_grad_()
        fitted.steer(a).sum().backward()
        assert bool(a.grad.any())


@every_method
def test_nothing_works_before_fit(name):
    method = METHODS[name].clone()
    assert not method.is_fitted
    for use in (method.steer, method.solve):
        with pytest.raises(NotFittedError, match=type(method).__name__):
            use(queries())
    if hasattr(steering(name), "field"):
        with pytest.raises(NotFittedError):
            _ = method.field
    else:
        assert not hasattr(method, "field")


@every_method
def test_clones_are_unfitted_and_a_fit_forgets_the_last(name):
    fresh = steering(name)
    method = fresh.clone()
    assert not method.is_fitted
    assert repr(method) == repr(fresh) == repr(METHODS[name])
    assert method.get_params().keys() == fresh.get_params().keys()
    assert method.fit(*contrast(25, width=9, seed=3)) is method
    method.fit(*contrast())
    assert method.width_ == WIDTH
    assert method.mean_norm_ == fresh.mean_norm_
    for amount in amounts(method):
        again = method.solve(queries(), amount).state
        assert torch.equal(again, fresh.solve(queries(), amount).state)


@every_method
def test_refused_examples_leave_the_last_fit(name):
    method = METHODS[name].clone().fit(*contrast())
    positive, negative = contrast()
    bad = negative.clone()
    bad[0, 0] = math.nan
    for arguments, message in (
        ((positive[:0], negative), "positive has 0 examples"),
        ((positive, negative[:1]), "negative has 1 examples"),
        ((positive, negative[:, 1:]), "width"),
        ((positive, bad), "NaN"),
        ((positive, negative, ([1, 2], [3])), "2 labels for 40 examples"),
        ((torch.ones(4, 3), torch.ones(4, 3)), "nothing to fit"),
        ((positive, positive.clone()), "nothing to tell apart"),
        ((positive.int(), negative), "int32"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            method.fit(*arguments)
    assert torch.equal(method.steer(queries()), steering(name).steer(queries()))


@every_method
def test_unknown_parameters_are_refused(name):
    with pytest.raises(InvalidInputError, match=f"{type(METHODS[name]).__name__} has no parameter"):
        METHODS[name].with_params(lvel=2.0)
    with pytest.raises(TypeError, match="lvel"):
        type(METHODS[name])(lvel=2.0)
