"""Methods made of others: one step, under a condition, several at once."""

import math

import pytest
import torch
from method_cases import steering

from barrier_cases import WIDTH, contrast, queries
from odesteer.artifact import load, save
from odesteer.barriers import LinearBarrier, PolynomialBarrier, TensorSketchBarrier
from odesteer.errors import ArtifactError, InvalidInputError, NotFittedError
from odesteer.flows import Euler, SumField
from odesteer.methods import (
    CAA,
    Amount,
    Conditional,
    LinearAcT,
    ODESteer,
    OneStep,
    Spherical,
    Sum,
    Wrapper,
)

CURVED = PolynomialBarrier(folds=0)


def unlike():
    """Two methods fitted on different data."""
    return (
        ODESteer(CURVED, level=1.0).fit(*contrast(seed=5)),
        CAA(T=0.5).fit(*contrast(seed=6)),
    )


def test_one_step_goes_along_the_field_at_the_start():
    method, a = steering("one-step"), queries()
    unit = method.field(a)
    torch.testing.assert_close(method.steer(a, T=0.7), a + 0.7 * unit)
    torch.testing.assert_close(
        method.steer(a, strength=-0.2), a - 0.2 * method.strength_unit * unit
    )
    assert str(method.default_amount) == "strength=1.5"
    torch.testing.assert_close(
        method.solve(a).time, torch.full_like(a[:, 0], 1.5).mul(method.strength_unit)
    )


def test_one_step_is_odesteer_with_one_euler_step():
    method, a = steering("one-step"), queries()
    many = ODESteer(solver=Euler(1)).fit(*contrast())
    for amount in (Amount("T", 0.7), Amount("level", 1.2), Amount("level", -0.5)):
        assert torch.equal(method.solve(a, amount).state, many.solve(a, amount).state)
    further = ODESteer(solver=Euler(20)).fit(*contrast())
    assert float((further.steer(a, T=3.0) - method.steer(a, T=3.0)).norm(dim=1).min()) > 0.01


def test_a_level_of_one_step_is_on_the_ray():
    method, a = steering("one-step"), queries(20)
    solution = method.solve(a, Amount("level", 1.0))
    moved = solution.reached & (solution.time > 0)
    assert int(moved.sum()) > 5
    ray = (solution.state - a)[moved] / solution.time[moved, None]
    torch.testing.assert_close(ray, method.field(a)[moved])
    h = method.barrier.value(solution.state)[moved]
    torch.testing.assert_close(h, torch.full_like(h, float(method.barrier.threshold(1.0))))


def test_the_published_step():
    paper = OneStep.paper(T=3.0, seed=7)
    assert isinstance(paper.barrier, TensorSketchBarrier)
    assert repr(paper.barrier) == repr(ODESteer.paper(seed=7).barrier)
    assert str(paper.default_amount) == "T=3.0"


def test_one_step_has_one_default():
    with pytest.raises(InvalidInputError, match="no default amount"):
        OneStep(strength=None).fit(*contrast())
    assert OneStep(T=1.0).default_amount == Amount("T", 1.0)
    with pytest.raises(InvalidInputError, match="exactly one"):
        OneStep(T=1.0, strength=1.0)
    with pytest.raises(TypeError, match="solver"):
        OneStep(solver=Euler(3))


@pytest.mark.parametrize("gate", [None, LinearBarrier(folds=0)])
@pytest.mark.parametrize("amount", [None, Amount("level", 2.0), Amount("T", 0.3)])
def test_a_condition_holds_rows_back_to_the_bit(gate, amount):
    method = Conditional(ODESteer(CURVED), gate, below=0.2).fit(*contrast())
    inner = ODESteer(CURVED).fit(*contrast())
    a = queries(40)
    barrier = inner.barrier if gate is None else gate.clone().fit(*contrast())
    acts = barrier.value(a) < barrier.threshold(0.2)
    assert 5 < int(acts.sum()) < 35
    assert torch.equal(method.acts(a), acts)
    ours, theirs = method.solve(a, amount), inner.solve(a, amount)
    assert torch.equal(ours.state[acts], theirs.state[acts])
    assert torch.equal(ours.state[~acts], a[~acts])
    assert torch.equal(ours.time, torch.where(acts, theirs.time, 0.0))
    assert bool((theirs.state[~acts] != a[~acts]).any())


def test_rows_held_back_reach_a_level_only_if_they_are_there():
    method, a = steering("conditional"), queries(40)  # acts below 0.5
    solution = method.solve(a, Amount("level", 1.0))
    h, tau = method.barrier.value(a), method.barrier.threshold(1.0)
    held = ~method.acts(a)
    assert torch.equal(solution.reached[held], (h >= tau)[held])
    assert bool((held & (h < tau)).any())
    assert bool((held & (h >= tau)).any())


def test_a_condition_has_the_quantities_and_the_barrier_of_its_method():
    for inner in (CAA(T=2.0), Spherical(level=0.7), LinearAcT()):
        method = Conditional(inner, gate=CURVED)
        assert method.quantities == inner.quantities
        assert method.default_amount == inner.default_amount
        assert method.keeps_norm == inner.keeps_norm
    fitted = Conditional(LinearAcT(), gate=CURVED).fit(*contrast())
    assert not hasattr(fitted, "barrier")
    assert not hasattr(fitted, "field")
    with pytest.raises(InvalidInputError, match=r"Conditional has no 'T'.*takes interpolation"):
        fitted.steer(queries(), T=1.0)
    fitted = Conditional(CAA(), gate=CURVED).fit(*contrast())
    assert fitted.barrier is fitted.method.barrier
    assert fitted.gate is not fitted.barrier


def test_a_condition_on_fitted_parts():
    inner, _ = unlike()
    gate = CURVED.clone().fit(*contrast())
    method = Conditional.around(inner, gate=gate, below=-0.3)
    a = queries(20)
    acts = gate.value(a) < gate.threshold(-0.3)
    assert torch.equal(method.steer(a)[acts], inner.steer(a)[acts])
    assert torch.equal(method.steer(a)[~acts], a[~acts])
    assert method.method is inner
    assert method.mean_norm_ == inner.mean_norm_
    own = Conditional.around(inner)
    assert torch.equal(own.acts(a), inner.barrier.value(a) < 0)


def test_conditions_that_cannot_be():
    inner, _ = unlike()
    with pytest.raises(InvalidInputError, match=r"LinearAcT has no barrier.*gate=LinearBarrier"):
        Conditional(LinearAcT()).fit(*contrast())
    with pytest.raises(InvalidInputError, match="gate is a barrier, not 'linear'"):
        Conditional(CAA(), gate="linear").fit(*contrast())
    with pytest.raises(InvalidInputError, match=r"wraps a method.*not 'caa'"):
        Conditional("caa", gate=CURVED).fit(*contrast())
    with pytest.raises(NotFittedError, match="CAA is not fitted"):
        Conditional.around(CAA())
    with pytest.raises(NotFittedError, match="PolynomialBarrier is not fitted"):
        Conditional.around(inner, gate=CURVED)
    with pytest.raises(InvalidInputError, match="width 9, the method on 12"):
        Conditional.around(inner, gate=CURVED.clone().fit(*contrast(width=9)))
    with pytest.raises(TypeError, match="belwo"):
        Conditional.around(inner, belwo=1.0)
    with pytest.raises(NotFittedError, match="Conditional"):
        Conditional().acts(queries())


def test_a_sum_adds_up_displacements():
    first, second = CAA(T=0.5), Spherical(level=1.0)
    method, a = Sum((first, second), (1.5, -0.4)).fit(*contrast()), queries()
    parts = [part.clone().fit(*contrast()) for part in (first, second)]
    moves = [part.steer(a) - a for part in parts]
    torch.testing.assert_close(method.steer(a), a + 1.5 * moves[0] - 0.4 * moves[1])
    torch.testing.assert_close(
        method.steer(a, interpolation=0.3), a + 0.3 * (1.5 * moves[0] - 0.4 * moves[1])
    )
    for given in ({"T": 0.4}, {"strength": 0.1}, {"level": 0.8}):
        moves = [part.steer(a, **given) - a for part in parts]
        torch.testing.assert_close(method.steer(a, **given), a + 1.5 * moves[0] - 0.4 * moves[1])
    torch.testing.assert_close(method.solve(a).time, (method.steer(a) - a).norm(dim=1))


def test_a_sum_of_fitted_methods_is_not_fitted_again():
    first, second = unlike()
    method, a = Sum.of(first, second, weights=(1.0, 2.0)), queries()
    torch.testing.assert_close(
        method.steer(a), a + (first.steer(a) - a) + 2 * (second.steer(a) - a)
    )
    assert method.methods == (first, second)
    assert method.mean_norm_ == pytest.approx((first.mean_norm_ + second.mean_norm_) / 2)
    # Strength is in the mean norms of each.
    torch.testing.assert_close(
        Sum.of(first, second).steer(a, strength=0.1),
        first.steer(a, strength=0.1) + second.steer(a, strength=0.1) - a,
    )
    clone = method.clone()
    assert not any(part.is_fitted for part in clone.methods)
    assert first.is_fitted


def test_a_sum_has_the_quantities_that_its_methods_share():
    assert Sum((CAA(), ODESteer())).quantities == ("interpolation", "level", "T", "strength")
    assert Sum((CAA(), LinearAcT())).quantities == ("interpolation",)
    fitted = Sum((CAA(), LinearAcT())).fit(*contrast())
    assert not hasattr(fitted, "field")
    with pytest.raises(InvalidInputError, match=r"Sum has no 'T'.*takes interpolation\."):
        fitted.steer(queries(), T=1.0)


def test_a_sum_is_its_field_to_first_order():
    method, a = steering("sum"), queries()
    assert isinstance(method.field, SumField)
    T = 1e-5
    moved = method.steer(a, T=T) - a
    torch.testing.assert_close(moved / T, method.field(a), rtol=1e-4, atol=1e-4)


def test_levels_of_a_sum_are_measured_at_its_end():
    """Two methods up one barrier overshoot, so they are there; pulling apart, they are not."""
    a = queries(20)
    same = Sum((ODESteer(CURVED), ODESteer(CURVED))).fit(*contrast())
    one = ODESteer(CURVED).fit(*contrast())
    level = Amount("level", 0.5)
    solution = same.solve(a, level)
    h = one.barrier.value(solution.state)
    assert bool((h[solution.reached] > one.barrier.threshold(0.5) - 1e-2).all())
    assert int(solution.reached.sum()) > 10
    single = Sum((ODESteer(CURVED),)).fit(*contrast()).solve(a, level)
    assert torch.equal(single.reached, one.solve(a, level).reached)
    half = Sum((ODESteer(CURVED),), (0.5,)).fit(*contrast()).solve(a, level)
    there = one.barrier.value(a) >= one.barrier.threshold(0.5)
    assert torch.equal(half.reached, there)


def test_sums_that_cannot_be():
    first, _ = unlike()
    for methods, weights, message in (
        ((), None, "adds up methods"),
        (CAA(), None, "adds up methods"),
        ((CAA(), "caa"), None, "method 1 of Sum is 'caa'"),
        ((CAA(), CAA()), (1.0,), "2 methods and the weights"),
        ((CAA(), CAA()), (1.0, math.inf), "weight 1 of Sum is inf"),
        ((CAA(), CAA()), (True, 1.0), "weight 0 of Sum is True"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Sum(methods, weights).fit(*contrast())
    with pytest.raises(NotFittedError, match="CAA is not fitted"):
        Sum.of(first, CAA())
    with pytest.raises(InvalidInputError, match="widths 9 and 12"):
        Sum.of(first, CAA().fit(*contrast(width=9)))
    with pytest.raises(InvalidInputError, match="adds up methods"):
        Sum.of()


def test_composites_nest():
    """Rows held back by either condition stay; a sum of sums is a sum."""
    a = queries(20)
    inner = Conditional(Sum((CAA(), Spherical()), (0.5, 0.5)), gate=CURVED)
    method = Sum((inner, CAA(T=0.0))).fit(*contrast())
    acts = method.methods[0].acts(a)
    assert torch.equal(method.steer(a)[~acts], a[~acts])
    assert bool((method.steer(a)[acts] != a[acts]).any(dim=1).all())
    moved = method.to(dtype=torch.float32)
    assert moved.methods[0].method.methods[0].direction_.dtype == torch.float32
    assert method.methods[0].method.methods[0].direction_.dtype == torch.float64
    assert not inner.method.methods[0].is_fitted


def test_files_whose_methods_do_not_fit_each_other(tmp_path):
    method = Sum.of(*unlike())
    method.methods = (method.methods[0], CAA().fit(*contrast(width=9)))
    save(method, tmp_path / "s.safetensors")
    with pytest.raises(ArtifactError, match=r"width 12, but its method has width 9"):
        load(tmp_path / "s.safetensors")


def test_every_wrapper_goes_around_fitted_methods():
    caa = CAA().fit(*contrast())
    for cls in Wrapper.__subclasses__():
        wrapper = cls.around(caa)
        assert wrapper.width_ == WIDTH
        assert torch.equal(wrapper.steer(queries()), cls(CAA()).fit(*contrast()).steer(queries()))
