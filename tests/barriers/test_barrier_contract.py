"""The estimator contract, for every barrier and its inputs."""

import pytest
import torch

from barrier_cases import BARRIERS, contrast, fitted, queries
from odesteer import barriers
from odesteer.barriers import Centred, PolynomialBarrier, Potential, Raw, UnitSphere, registry
from odesteer.errors import InvalidInputError, NotFittedError
from odesteer.estimator import Estimator

every_barrier = pytest.mark.parametrize("name", list(BARRIERS))


def test_every_registered_barrier_is_tested():
    classes = {registry.get(name) for name in registry}
    # Potentials are learned through a model, see test_potentials.
    fitted_here = {cls for cls in classes if not issubclass(cls, Potential)}
    assert {type(barrier) for barrier in BARRIERS.values()} == fitted_here


@every_barrier
def test_nothing_works_before_fit(name):
    barrier, a = BARRIERS[name].clone(), queries()
    assert not barrier.is_fitted
    for use in (barrier.value, barrier.gradient, barrier.value_and_gradient, barrier.restrict):
        with pytest.raises(NotFittedError, match=type(barrier).__name__):
            use(a)
    with pytest.raises(NotFittedError, match="fit"):
        barrier.threshold(1.0)


# Parts of these stay as they are, so that no other width can be fitted to.
FROZEN = ("frozen", "product-frozen", "sae", "sae-few")


@pytest.mark.parametrize("name", [name for name in BARRIERS if name not in FROZEN])
def test_fit_returns_the_barrier_and_forgets_the_last_fit(name):
    barrier = BARRIERS[name].clone()
    other = contrast(30, width=9, seed=11)
    assert barrier.fit(*other) is barrier
    barrier.fit(*contrast())
    fresh = fitted(name)
    assert barrier.width_ == 12
    assert torch.equal(barrier.value(queries()), fresh.value(queries()))
    assert barrier.learned().keys() == fresh.learned().keys()


@every_barrier
def test_clones_are_unfitted_and_equal(name):
    barrier = fitted(name)
    clone = barrier.clone()
    assert repr(clone) == repr(barrier) == repr(BARRIERS[name])
    assert not clone.is_fitted
    assert barrier.is_fitted
    if hasattr(barrier, "inputs"):
        assert type(clone.inputs) is type(BARRIERS[name].inputs)
        assert clone.inputs is not BARRIERS[name].inputs
    assert clone.get_params().keys() == barrier.get_params().keys()
    assert torch.equal(clone.fit(*contrast()).value(queries()), barrier.value(queries()))


@every_barrier
def test_the_representation_can_be_read_back(name):
    barrier = BARRIERS[name]
    names = {cls: getattr(barriers, cls) for cls in barriers.__all__}
    assert repr(eval(repr(barrier), names)) == repr(barrier)


@every_barrier
def test_parameters_are_those_of_the_constructor(name):
    barrier = BARRIERS[name]
    assert "fitting" in barrier.get_params()
    changed = barrier.with_params(seed=99)
    assert changed.seed == 99
    assert changed.get_params().keys() == barrier.get_params().keys()
    with pytest.raises(InvalidInputError, match=f"{type(barrier).__name__} has no parameter 'sed'"):
        barrier.with_params(sed=99)


@every_barrier
def test_fit_leaves_no_trace_on_the_prototype(name):
    """Default arguments and lists of cases are shared objects."""
    prototype = BARRIERS[name]
    fitted(name)
    assert not prototype.is_fitted
    inputs = getattr(prototype, "inputs", ())
    several = inputs if isinstance(inputs, (list, tuple)) else (inputs,)
    parts = [*several, *getattr(prototype, "barriers", ())]
    assert all(part is None or part.learned() == {} for part in parts)


@every_barrier
def test_moving_to_another_type_gives_a_copy(name):
    barrier = fitted(name)
    single = barrier.to(dtype=torch.float32)
    a = queries()
    assert torch.equal(barrier.value(a), fitted(name).value(a))
    torch.testing.assert_close(single.value(a), barrier.value(a), rtol=1e-3, atol=1e-3)
    assert torch.float64 not in dtypes(single)
    assert torch.float64 in dtypes(barrier)


def dtypes(value):
    """The types of all tensors inside an estimator."""
    if isinstance(value, torch.Tensor):
        return {value.dtype}
    if isinstance(value, Estimator):
        value = [*value.get_params().values(), *value.learned().values()]
    if isinstance(value, dict):
        value = list(value.values())
    return set().union(*map(dtypes, value)) if isinstance(value, (list, tuple)) else set()


@every_barrier
def test_same_data_same_bits(name):
    again = BARRIERS[name].clone().fit(*contrast())
    assert torch.equal(again.value(queries()), fitted(name).value(queries()))
    assert (again.upper_, again.lower_) == (fitted(name).upper_, fitted(name).lower_)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="degre"):
        PolynomialBarrier(degre=3)


def test_centred_inputs():
    a = torch.randn(50, 6, dtype=torch.float64) * 4 + 2
    x = Centred().fit(a)(a)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(6, dtype=torch.float64))
    assert float(x.square().sum(dim=1).mean()) == pytest.approx(1)
    with pytest.raises(InvalidInputError, match="do not vary"):
        Centred().fit(torch.ones(3, 2))
    # Squares of such numbers vanish in float32.
    tiny = (1e-25 * a).float()
    assert Centred().fit(tiny).scale_ == pytest.approx(1e-25 * Centred().fit(a).scale_, rel=1e-5)


def test_unit_sphere_inputs():
    a = torch.randn(5, 6)
    torch.testing.assert_close(UnitSphere()(a).norm(dim=1), torch.ones(5))
    assert torch.equal(UnitSphere()(torch.zeros(6)), torch.zeros(6))
    assert torch.equal(Raw()(a), a)
