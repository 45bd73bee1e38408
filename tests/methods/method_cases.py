"""Steering methods of every kind, fitted on small synthetic activations."""

from functools import cache

import pytest
import torch

from barrier_cases import contrast, massive_contrast
from odesteer.barriers import (
    Centred,
    LinearBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    Raw,
    TensorSketchBarrier,
    Training,
    ValueBarrier,
)
from odesteer.flows import (
    RK4,
    BogackiShampine,
    Certified,
    Covariance,
    Euler,
    Geodesic,
    Midpoint,
)
from odesteer.methods import (
    CAA,
    HPR,
    ITI,
    Ablation,
    Amount,
    Angular,
    Bridge,
    Conditional,
    GatedDirection,
    HeadITI,
    LeastIntervention,
    LinearAcT,
    Method,
    MiMiC,
    NormPreserving,
    ODESteer,
    OneStep,
    QueryTruthFlow,
    REControl,
    RepE,
    Setpoint,
    Spherical,
    SphericalSteering,
    SubspaceMap,
    Sum,
    TruthFlow,
    TwoSided,
)

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
    "ablation": Ablation(),
    "ablation-positive": Ablation("positive"),
    "two-sided": TwoSided(),
    "two-sided-linear": TwoSided(LinearBarrier(folds=0)),
    "least-intervention": LeastIntervention(),
    "least-intervention-linear": LeastIntervention(LinearBarrier(folds=0), Covariance()),
    "gated-direction": GatedDirection(),
    "setpoint": Setpoint(),
    "setpoint-zero": Setpoint(2.0, "zero", 0.5),
    "bridge": Bridge(),
    "bridge-few": Bridge(12, 4, 5.0, -0.4),
    "caa": CAA(),
    "repe": RepE(),
    "repe-centred": RepE(centred=True),
    "iti": ITI(),
    "iti-optimum": ITI(probe=LinearBarrier()),
    "head-iti": HeadITI(n_heads=3, top_k=2),
    "head-iti-named": HeadITI(n_heads=3, heads=(0, 2)),
    "spherical": Spherical(),
    "spherical-steering": SphericalSteering(),
    "spherical-steering-everywhere": SphericalSteering(2.0, -1.0, 0.7),
    "mimic": MiMiC(),
    "mimic-everywhere": MiMiC(0.1, 0.5, gate=None),
    "linear-act": LinearAcT(),
    "linear-act-support": LinearAcT(support=True),
    "hpr": HPR(),
    "hpr-both": HPR(learners="both", hidden=(8,)),
    "subspace-map": SubspaceMap(rank=3),
    "recontrol": REControl(ValueBarrier((16,))),
    "recontrol-tethered": REControl(ValueBarrier((8, 8), folds=0), 5, regularisation=1.0),
    "truthflow": TruthFlow(hidden=(16,)),
    "truthflow-rank-2": TruthFlow(0.5, 2, Midpoint(3), (8, 8)),
    "query-truthflow": QueryTruthFlow(
        hidden=(16,), training=Training(0.02, max_epochs=10, keep_best=True)
    ),
    "angular": Angular(),
    "angular-across": Angular(angle=-10.0, interpolation=0.5),
    "angular-by": Angular(angle=300.0, turn="by"),
    "norm-preserving": NormPreserving(),
    "norm-preserving-odesteer": NormPreserving(ODESteer(PolynomialBarrier(folds=0))),
    "norm-preserving-map": NormPreserving(LinearAcT()),
    "one-step": OneStep(),
    "one-step-paper": OneStep.paper(T=1.0).with_params(barrier=TensorSketchBarrier(2, folds=0)),
    "conditional": Conditional(below=0.5),
    "conditional-gate": Conditional(CAA(), gate=PolynomialBarrier(folds=0)),
    "sum": Sum(),
    "sum-of-maps": Sum((LinearAcT(), Conditional(LinearAcT(), LinearBarrier())), (0.7, -0.2)),
}


@cache
def steering(name: str, dtype: torch.dtype = torch.float64) -> Method:
    """A method of the list after `fit`; not to be changed."""
    return METHODS[name].clone().fit(*contrast(dtype=dtype))


@cache
def steering_massive(name: str) -> Method:
    """A method of the list after `fit` to activations with a massive coordinate."""
    return METHODS[name].clone().fit(*massive_contrast())


def amounts(method: Method) -> list[Amount]:
    """One amount of every quantity of a method."""
    values = {"level": 0.8, "T": 0.7, "strength": 0.2, "interpolation": 0.5}
    return [Amount(quantity, values[quantity]) for quantity in method.quantities]


every_method = pytest.mark.parametrize("name", list(METHODS))
