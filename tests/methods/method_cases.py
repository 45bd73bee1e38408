"""Steering methods of every kind, fitted on small synthetic activations."""

from functools import cache

import torch

from barrier_cases import contrast
from odesteer.barriers import (
    Centred,
    LinearBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    Raw,
    TensorSketchBarrier,
)
from odesteer.flows import RK4, BogackiShampine, Certified, Covariance, Euler, Geodesic
from odesteer.methods import CAA, Method, ODESteer, Spherical

METHODS: dict[str, Method] = {
    "odesteer": ODESteer(),
    "odesteer-paper": ODESteer.paper(T=1.0).with_params(barrier=TensorSketchBarrier(2)),
    "odesteer-linear": ODESteer(LinearBarrier(folds=0, inputs=Raw()), Euler(1)),
    "odesteer-centred": ODESteer(PolynomialBarrier(inputs=Centred(), gamma=1.0, folds=0), RK4(4)),
    "odesteer-cubic": ODESteer(PolynomialBarrier(degree=3, folds=0), Geodesic(8)),
    "odesteer-neural": ODESteer(NeuralBarrier((8,), max_epochs=20, folds=0), Euler(4)),
    "odesteer-adaptive": ODESteer(PolynomialBarrier(folds=0), BogackiShampine()),
    "odesteer-certified": ODESteer(PolynomialBarrier(folds=0), Certified(Euler(5))),
    "odesteer-covariance": ODESteer(PolynomialBarrier(folds=0), metric=Covariance()),
    "caa": CAA(),
    "spherical": Spherical(),
}


@cache
def steering(name: str, dtype: torch.dtype = torch.float64) -> Method:
    """A method of the list after `fit`; not to be changed."""
    return METHODS[name].clone().fit(*contrast(dtype=dtype))
