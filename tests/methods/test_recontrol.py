"""RE-Control: ascent on a value network, and on values that are known."""

import math

import pytest
import torch
from method_cases import steering

from barrier_cases import WIDTH, contrast, queries
from odesteer.barriers import LinearBarrier, ValueBarrier
from odesteer.barriers.composed import Function
from odesteer.barriers.inputs import Raw
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.flows import Euler, solve
from odesteer.methods import Amount, ODESteer, REControl

QUICK = ValueBarrier((8,), folds=0)


class Bowl(Function):
    """V = -½‖x - c‖², with c all ones: ∇V = c - x."""

    def value(self, x):
        return -0.5 * (x - 1).square().sum(-1)

    def gradient(self, x):
        return 1 - x


def bowl(**parameters):
    """A method that climbs a bowl, whatever it was fitted to."""
    method = REControl(ValueBarrier((4,), folds=0, inputs=Raw()), **parameters).fit(*contrast())
    method.barrier.function_ = Bowl()
    method.barrier.inputs = Raw()
    return method


def test_it_is_gradient_ascent():
    method, a = steering("recontrol"), queries()
    step = 0.3 / method.n_steps
    expected = a
    for _ in range(method.n_steps):
        expected = expected + step * method.barrier.gradient(expected)
    torch.testing.assert_close(method.steer(a, T=0.3), expected)
    flow = solve(method.field, a, 0.3, Euler(method.n_steps)).state
    torch.testing.assert_close(method.steer(a, T=0.3), flow)


def test_regularised_ascent_by_definition():
    method, a = steering("recontrol-tethered"), queries()
    rate = method.regularisation / method.mean_norm_**2
    for T in (0.4, -0.4):
        step, expected = abs(T) / method.n_steps, a
        for _ in range(method.n_steps):
            ascent = math.copysign(1, T) * method.barrier.gradient(expected)
            expected = (expected + step * (ascent + rate * a)) / (1 + step * rate)
        torch.testing.assert_close(method.steer(a, T=T), expected)


def test_the_value_rises_with_every_step():
    a = queries(20)
    for regularisation in (0.0, 5.0):
        last = None
        for T in (0.0, 0.1, 0.2, 0.4, 0.8):
            method = bowl(n_steps=20, regularisation=regularisation)
            value = method.barrier.value(method.steer(a, T=T))
            assert last is None or bool((value > last).all())
            last = value


def test_the_regularised_ascent_ends_at_the_optimum_of_its_objective():
    """c - x = ρ(x - a₀) at x = (c + ρa₀)/(1 + ρ), whatever the quantity."""
    a = queries(10)
    method = bowl(n_steps=400, regularisation=4.0)
    rate = 4.0 / method.mean_norm_**2
    optimum = (1 + rate * a) / (1 + rate)
    torch.testing.assert_close(method.steer(a, T=40.0), optimum, rtol=1e-4, atol=1e-4)
    free = bowl(n_steps=400).steer(a, T=40.0)
    torch.testing.assert_close(free, torch.ones_like(a), rtol=1e-4, atol=1e-4)
    assert bool(
        ((method.steer(a, strength=0.2) - a).norm(dim=1) < 0.2 * method.strength_unit).all()
    )


def test_strength_is_arc_length_in_class_deviations():
    method, a = bowl(n_steps=5), queries()
    moved = (method.steer(a, strength=0.1) - a).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1 * method.strength_unit))
    # The same path as that of T, and of a flow of unit speed.
    flow = ODESteer(QUICK, Euler(10, steps_over="cap")).fit(*contrast())
    ours = REControl(QUICK).fit(*contrast())
    for amount in ({"strength": 0.2}, {"level": 1.0}, {"level": -0.5}):
        torch.testing.assert_close(ours.steer(a, **amount), flow.steer(a, **amount))


def test_a_tether_holds_back_both_ways():
    a = queries(30)
    free = REControl(QUICK).fit(*contrast())
    for strength in (0.3, -0.3):
        last = (free.steer(a, strength=strength) - a).norm(dim=1)
        for regularisation in (1.0, 5.0):
            held = REControl(QUICK, regularisation=regularisation).fit(*contrast())
            moved = (held.steer(a, strength=strength) - a).norm(dim=1)
            assert bool((moved < last).all())
            last = moved


@pytest.mark.parametrize("regularisation", [50.0, 1e3, 1e8])
def test_levels_that_the_tether_does_not_let_it_reach(regularisation):
    """However strong, it holds; an explicit step along it would overshoot the start."""
    a = queries(30)
    free = REControl(QUICK).fit(*contrast())
    method = REControl(QUICK, regularisation=regularisation).fit(*contrast())
    for level in (1.5, -1.5):
        solution = method.solve(a, Amount("level", level))
        h, end = method.barrier.value(a), method.barrier.value(solution.state)
        unheld = free.solve(a, Amount("level", level))
        assert int(solution.reached.sum()) < int(unheld.reached.sum())
        assert bool((math.copysign(1, level) * (end - h) >= 0).all())
        moved = (solution.state - a).norm(dim=1)
        assert bool((moved <= (unheld.state - a).norm(dim=1) + 1e-9).all())
        past = math.copysign(1, level) * (end - method.barrier.threshold(level))
        assert bool((past[~solution.reached] < 0).all())


def test_rewards():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(500, WIDTH, generator=generator)
    rewards = 10 + 3 * a[:, 0] - 2 * a[:, 1] + 0.3 * torch.randn(500, generator=generator)
    method = REControl().fit_rewards(a, rewards)
    barrier = method.barrier
    assert method.width_ == WIDTH
    assert method.mean_norm_ == pytest.approx(float(a.norm(dim=1).mean()))
    assert barrier.middle_ == pytest.approx(float(rewards.mean()))
    assert barrier.explained_ > 0.9
    error = barrier.value(a) + barrier.middle_ - rewards
    assert float(error.square().mean().sqrt()) < 0.2 * float(rewards.std())
    steered = method.steer(a, level=1.0)
    truth = 10 + 3 * steered[:, 0] - 2 * steered[:, 1]
    wanted = float(rewards.mean()) + barrier.upper_
    low = rewards < rewards.mean()
    assert float((truth[low] - wanted).abs().mean()) < 0.2 * float(rewards.std())
    again = REControl().fit_rewards(a, rewards.tolist())
    assert torch.equal(again.steer(a), method.steer(a))
    # Another unit of reward changes the unit of the value, and nothing else.
    scaled = REControl().fit_rewards(a, 100 * rewards + 7)
    torch.testing.assert_close(scaled.steer(a), method.steer(a), rtol=1e-2, atol=1e-2)


def test_groups_of_rewards_are_not_split():
    a = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).repeat_interleave(3, 0)
    rewards = torch.randn(60, generator=torch.Generator().manual_seed(1)).repeat_interleave(3)
    owners = [f"prompt {i // 3}" for i in range(180)]
    settings = {"learning_rate": 1e-2, "weight_decay": 0.0, "keep_best": True}
    honest = ValueBarrier(**settings).fit_rewards(a, rewards, owners)
    split = ValueBarrier(**settings).fit_rewards(a, rewards)
    assert honest.explained_ < 0.1 < split.explained_


def test_a_fit_to_rewards_forgets_the_last_fit():
    method = REControl(QUICK).fit(*contrast(width=9))
    a = queries(30)
    method.fit_rewards(a, a[:, 0])
    fresh = REControl(QUICK).fit_rewards(a, a[:, 0])
    assert torch.equal(method.steer(a), fresh.steer(a))
    with pytest.raises(InvalidInputError, match="30 real numbers"):
        method.fit_rewards(a, a)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (torch.ones(7), "0 of 7 rewards are above their mean 1"),
        (torch.tensor([0.0, 1, 0, 0, 0, 0, 0]), "1 of 7 rewards"),
        (torch.tensor([0.0, math.nan, 1, 2, 3, 4, 5]), "1 of 7 rewards are not finite"),
        (torch.arange(6.0), "7 real numbers, one for each activation"),
        (torch.arange(7).to(torch.complex64), "complex"),
    ],
)
def test_unusable_rewards(rewards, message):
    for estimator in (REControl(QUICK), QUICK.clone()):
        with pytest.raises(InvalidInputError, match=message):
            estimator.fit_rewards(queries(), rewards)
        assert not estimator.is_fitted


def test_unusable_activations_with_rewards():
    with pytest.raises(InvalidInputError, match=r"float tensor \[n, d\]"):
        REControl().fit_rewards(queries()[0], torch.arange(12.0))
    with pytest.raises(InvalidInputError, match="5 labels for 7"):
        REControl().fit_rewards(queries(), torch.arange(7.0), range(5))
    a = queries()
    a[3, 0] = math.inf
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        REControl().fit_rewards(a, torch.arange(7.0))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"regularisation": -1.0}, "regularisation must be"),
        ({"regularisation": math.inf}, "regularisation must be"),
        ({"max_strength": 0.0}, "max_strength"),
        ({"barrier": LinearBarrier()}, "climbs a ValueBarrier.*ODESteer"),
        ({"barrier": ValueBarrier(patience=0)}, "patience"),
    ],
)
def test_unusable_parameters(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        REControl(**parameters).fit(*contrast())


def test_training_that_does_not_converge():
    barrier = ValueBarrier(max_epochs=3, patience=5, folds=0)
    method = REControl(barrier)
    with pytest.raises(ConvergenceError, match=r"value network did not converge.*keep_best=True"):
        method.fit(*contrast())
    assert not method.is_fitted
    kept = REControl(barrier.with_params(keep_best=True)).fit(*contrast())
    assert kept.barrier.n_epochs_ <= 3
    with pytest.raises(ConvergenceError, match="diverged"):
        ValueBarrier(learning_rate=1e30, folds=0).fit(*contrast())


def test_the_same_seed_gives_the_same_bits():
    data, a = contrast(dtype=torch.float32), queries(dtype=torch.float32)
    state = torch.get_rng_state()
    first = REControl().fit(*data).steer(a)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(REControl().fit(*data).steer(a), first)
    assert not torch.equal(REControl(ValueBarrier(seed=1)).fit(*data).steer(a), first)


def test_both_classes_count_alike():
    """Classes that do not differ, four times as many of one: V is 1/2 all the same."""
    x = torch.randn(250, 6, generator=torch.Generator().manual_seed(2))
    h = ValueBarrier(folds=0).fit(x[:200], x[200:]).value(queries(width=6, dtype=torch.float32))
    assert float(h.mean().abs()) < 0.15


def test_fitting_in_inference_mode():
    expected = REControl(QUICK).fit(*contrast()).steer(queries())
    with torch.inference_mode():
        inside = REControl(QUICK).fit(*contrast()).steer(queries())
    torch.testing.assert_close(inside, expected)
