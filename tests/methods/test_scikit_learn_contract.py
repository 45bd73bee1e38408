"""scikit-learn's contract for every barrier and method: parameters, clones, what `fit` changes."""

import pytest
import sklearn
import torch
from method_cases import METHODS
from sklearn.utils import estimator_checks

from barrier_cases import BARRIERS, contrast
from odesteer import ODESteer
from odesteer.barriers import (
    LinearBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    ProductBarrier,
    StandardizedSphere,
)
from odesteer.errors import InvalidInputError
from odesteer.estimator import Estimator, Parametrised
from odesteer.methods import CAA, Conditional

ESTIMATORS: dict[str, Estimator] = {
    **{f"barrier-{name}": barrier for name, barrier in BARRIERS.items()},
    **{f"method-{name}": method for name, method in METHODS.items()},
}
every_estimator = pytest.mark.parametrize("name", list(ESTIMATORS))
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
]


@every_estimator
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_of_scikit_learn(name, check):
    """Those that do not call ``fit(X, y)`` or ``predict``."""
    check(name, ESTIMATORS[name])


def parts(value, path=""):
    """Every parametrised object inside, by its path."""
    found = {}
    if isinstance(value, Parametrised):
        found[path] = value
        for name, inner in vars(value).items():
            found.update(parts(inner, f"{path}.{name}"))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            found.update(parts(inner, f"{path}.{i}"))
    return found


@every_estimator
def test_fit_changes_no_parameter(name):
    """What is fitted lies in attributes that end in an underscore."""
    estimator = ESTIMATORS[name].clone()
    before = estimator.get_params()
    shown = repr(estimator)
    estimator.fit(*contrast())
    after = estimator.get_params()
    assert list(after) == list(before)
    assert all(after[each] is before[each] for each in before)
    assert repr(estimator) == shown
    frozen = "frozen" in name  # which holds a fitted barrier as its parameter
    for path, part in parts(tuple(before.values())).items():
        assert frozen or not isinstance(part, Estimator) or not part.learned(), path


@every_estimator
def test_clones_of_scikit_learn_are_unfitted_and_fit_the_same(name):
    fitted = ESTIMATORS[name].clone().fit(*contrast())
    clone = sklearn.clone(fitted)
    assert type(clone) is type(fitted)
    assert not clone.learned()
    assert repr(clone) == repr(fitted)
    other, own = parts(clone), parts(fitted)
    assert not {id(part) for part in other.values()} & {id(part) for part in own.values()} or (
        "frozen" in name
    )


@every_estimator
def test_default_objects_are_not_shared(name):
    cls = type(ESTIMATORS[name])
    try:
        first, second = cls(), cls()
    except TypeError:
        pytest.skip("it has a parameter without a default")
    shared = {id(part) for part in parts(first).values()}
    assert not shared & {id(part) for part in parts(second).values()}


def test_a_changed_default_changes_no_other():
    shown = repr(ODESteer())
    steerer = ODESteer()
    steerer.barrier.C = 1e4
    assert ODESteer().barrier.C == 1.0
    assert repr(ODESteer()) == shown == "ODESteer()"
    assert repr(steerer) == "ODESteer(barrier=PolynomialBarrier(C=10000.0))"


def test_parameters_of_parts_have_paths():
    method = Conditional(ODESteer(LinearBarrier(inputs=StandardizedSphere())), LinearBarrier(3.0))
    params = method.get_params()
    assert params["method__barrier__inputs__coordinatewise"] is False
    assert params["gate__C"] == 3.0
    assert set(method.get_params(deep=False)) == {"method", "gate", "below"}
    changed = method.set_params(
        method__barrier__inputs__coordinatewise=True, gate__C=2.0, below=0.5
    )
    assert changed is method
    assert method.method.barrier.inputs.coordinatewise
    assert (method.gate.C, method.below) == (2.0, 0.5)
    method.set_params(gate__C=7.0, gate=PolynomialBarrier())
    assert repr(method.gate) == "PolynomialBarrier(C=7.0)"
    network = NeuralBarrier().set_params(max_epochs=3, training__patience=2)
    assert (network.training.max_epochs, network.training.patience) == (3, 2)
    for wrong in ("levl", "barrier__Cc", "level__C", "T__"):
        with pytest.raises(InvalidInputError, match="has no parameter"):
            ODESteer().set_params(**{wrong: 1})


def test_parts_read_as_fitted_once_there_was_a_fit():
    barrier = ProductBarrier((LinearBarrier(folds=0), PolynomialBarrier(folds=0)), folds=0)
    templates = barrier.barriers
    assert not any(part.is_fitted for part in templates)
    barrier.fit(*contrast())
    assert all(part.is_fitted for part in barrier.barriers)
    assert barrier.get_params()["barriers"] is templates
    barrier.forget()
    assert barrier.barriers is templates
    method = Conditional(CAA(), LinearBarrier(folds=0)).fit(*contrast())
    assert method.gate.is_fitted
    assert method.gate is method.gate_
    single = method.to(dtype=torch.float32)
    assert single.gate.function_.slope_.dtype == torch.float32
    assert method.gate.function_.slope_.dtype == torch.float64
