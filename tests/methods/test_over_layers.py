"""Feedback over layers, barriers and planes that layers share, the bridge on the sphere."""

import math
from dataclasses import replace

import pytest
import torch

from barrier_cases import WIDTH, contrast, massive_contrast
from odesteer.artifact import Site, Steerer, SteererSet, lqr
from odesteer.barriers import (
    Fitting,
    NeuralBarrier,
    SharedProjectionBarrier,
    Training,
    ValueBarrier,
    check_contrast,
)
from odesteer.errors import InvalidInputError
from odesteer.methods import Ablation, Angular, Bridge, ODESteer, Setpoint
from odesteer.methods.angular import shared_plane

QUICK = Training(0.02, max_epochs=40, keep_best=True)
Sides = tuple[torch.Tensor, torch.Tensor, tuple[list[int], list[int]]]


def layers(n: int = 3, massive: bool = False) -> list[Sides]:
    """The same examples at several layers: rotated a little and scaled."""
    positive, negative = massive_contrast() if massive else contrast()
    generator = torch.Generator().manual_seed(3)
    owners = list(range(len(positive))), [1000 + i for i in range(len(negative))]
    found = []
    for k in range(n):
        turn = torch.eye(WIDTH, dtype=positive.dtype)
        turn = turn + 0.1 * torch.randn(WIDTH, WIDTH, generator=generator, dtype=positive.dtype)
        found.append(((1 + k) * positive @ turn, (1 + k) * negative @ turn, owners))
    return found


def test_setpoints_by_hand() -> None:
    """Means 2 and 0 along the first axis."""
    positive = torch.tensor([[3.0, 1.0], [1.0, -1.0]]).repeat(4, 1)
    negative = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).repeat(4, 1)
    a = torch.tensor([[5.0, 7.0], [-2.0, 3.0]])
    for parameters, value in (((1.0, "negative"), 2.0), ((3.0, "zero"), 6.0), ((0.0,), 0.0)):
        method = Setpoint(*parameters, folds=0).fit(positive, negative)
        torch.testing.assert_close(method.steer(a), torch.tensor([[value, 7.0], [value, 3.0]]))
        torch.testing.assert_close(method.steer(a, interpolation=0.0), a)
    along = Setpoint(folds=0).fit(positive, negative).along(torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(along.steer(a), torch.tensor([[5.0, 5.5], [-2.0, 5.0]]))
    with pytest.raises(InvalidInputError, match="origin"):
        Setpoint(origin="mean").fit(positive, negative)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [contrast(), massive_contrast()], ids=["plain", "massive"])
def test_a_setpoint_along_itself_is_an_ablation(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    moved = Setpoint().fit(*data).steer(data[1])
    torch.testing.assert_close(moved, Ablation("positive").fit(*data).steer(data[1]))


def _set(n: int) -> SteererSet:
    return SteererSet(
        Steerer(Setpoint(folds=0).fit(positive, negative), Site(2 * k))
        for k, (positive, negative, _) in enumerate(layers(n))
    )


def test_linear_quadratic_gains_by_hand() -> None:
    """With A = 2I every matrix is a number: S₁ = .1, S₀ = .1 + 4(.1 - .1²/3.1)."""
    controlled = lqr(_set(2), [2 * torch.eye(WIDTH)])
    S = 0.1 + 4 * (0.1 - 0.01 / 3.1)
    for steerer, gain in zip(controlled, (S / (S + 3), 0.1 / 3.1), strict=True):
        method = steerer.method
        assert isinstance(method, Setpoint)
        torch.testing.assert_close(method.direction_, gain * method.readout_)


def test_linear_quadratic_feedback_costs_least() -> None:
    """For a linear system no other gains cost less: errors along v stay along v where A = I."""
    original = _set(3)
    v = original[0].method.readout_.double()  # type: ignore[attr-defined]
    for steerer in original:
        steerer.method.readout_ = v.to(v)  # type: ignore[attr-defined]
    costs = {"state_cost": 0.3, "control_cost": 0.7, "final_cost": 0.9}
    controlled = lqr(original, [torch.eye(WIDTH)] * 2, **costs)
    best = [float(s.method.direction_.double() @ v) for s in controlled]  # type: ignore[attr-defined]

    def cost(gains: list[float]) -> float:
        error, total = 1.0, 0.0
        for i, gain in enumerate(gains):
            total += 0.7 * (gain * error) ** 2
            error *= 1 - gain
            total += (0.9 if i == 2 else 0.3) * error**2
        return total

    for i in range(3):
        for change in (-0.01, 0.01):
            other = [gain + change * (i == k) for k, gain in enumerate(best)]
            assert cost(other) > cost(best)


def test_what_has_no_linear_quadratic_feedback() -> None:
    eye = torch.eye(WIDTH)
    caa = SteererSet([Steerer(Ablation().fit(*contrast()), Site(1))])
    with pytest.raises(InvalidInputError, match="Ablation"):
        lqr(caa, [])
    mixed = SteererSet(
        Steerer(s.method, replace(s.site, part=part))  # type: ignore[type-var]
        for s, part in zip(_set(2), ("heads", "residual"), strict=True)
    )
    with pytest.raises(InvalidInputError, match="heads and residual"):
        lqr(mixed, [eye])
    with pytest.raises(InvalidInputError, match="1 Jacobians"):
        lqr(_set(2), [])
    with pytest.raises(InvalidInputError, match="control_cost"):
        lqr(_set(2), [eye], control_cost=0.0)
    with pytest.raises(InvalidInputError, match="NaN"):
        lqr(_set(2), [eye * math.nan])


@pytest.mark.parametrize("massive", [False, True], ids=["plain", "massive"])
def test_layers_share_a_projection(massive: bool) -> None:
    sides = layers(massive=massive)
    template = SharedProjectionBarrier(4, (8,), QUICK)
    fitted = ODESteer(template, amount=1.0).fit_layers(sides)
    functions = [method.barrier.function_ for method in fitted]  # type: ignore[attr-defined]
    for function in functions[1:]:
        assert torch.equal(function.projection_, functions[0].projection_)
        assert not torch.equal(function.scale_, functions[0].scale_)
    for method, (_, negative, _) in zip(fitted, sides, strict=True):
        assert repr(method) == repr(ODESteer(template, amount=1.0))
        barrier = method.barrier
        assert barrier.held_out_ is not None
        assert barrier.held_out_["auc"] > 0.6
        a = negative[:5].double().requires_grad_()
        (expected,) = torch.autograd.grad(barrier.value(a).sum(), a)
        torch.testing.assert_close(barrier.gradient(a.detach()), expected)
        # The field has unit length and h rises along it.
        moved = method.steer(negative, level=1.0)
        assert float((barrier.value(moved) - barrier.value(negative)).min()) >= -1e-5
        assert torch.equal(barrier.inputs.mean_, barrier.inputs_.mean_)  # type: ignore[attr-defined]


def test_one_layer_of_a_shared_projection_is_the_same_both_ways() -> None:
    (side,) = layers(1)
    template = SharedProjectionBarrier(4, (8,), QUICK, folds=2)
    alone, together = template.clone().fit(*side), template.fit_layers([side])[0]
    torch.testing.assert_close(alone.value(side[1]), together.value(side[1]))
    assert alone.held_out_ == together.held_out_
    with pytest.raises(InvalidInputError, match="same examples"):
        template.fit_layers([side, (side[0][1:], side[1], (side[2][0][1:], side[2][1]))])
    with pytest.raises(InvalidInputError, match="rank"):
        SharedProjectionBarrier(0).fit(*side)


def test_other_methods_fit_each_layer_to_its_own() -> None:
    sides = layers(2)
    method = ODESteer(NeuralBarrier((4,), QUICK, folds=0))
    for one, side in zip(method.fit_layers(sides), sides, strict=True):
        a = side[1]
        torch.testing.assert_close(one.steer(a), method.clone().fit(*side).steer(a))


def test_a_plane_that_layers_share() -> None:
    sides = layers(4)
    fitted = Angular(plane="shared", max_strength=None).fit_layers(sides)
    plane = shared_plane([check_contrast(*side) for side in sides])
    torch.testing.assert_close(plane @ plane.T, torch.eye(2, dtype=plane.dtype))
    for method, (_, negative, _) in zip(fitted, sides, strict=True):
        torch.testing.assert_close(method.plane_, plane.to(method.plane_))
        turned = method.steer(negative)
        torch.testing.assert_close(turned.norm(dim=1), negative.norm(dim=1))
        x, y = (turned @ method.plane_.T).unbind(1)
        assert float(y.abs().max()) < 1e-4 * float(x.abs().max())
        assert float(x.min()) >= 0
        # Levels of the barrier along b₁ are met.
        level = method.solve(negative, method.default_amount.__class__("level", 0.1))
        assert level.reached is not None
        value = method.barrier.value(level.state)[level.reached]
        assert float(value.min()) >= float(method.barrier.threshold(0.1)) - 1e-3
    for call in (lambda: Angular(plane="shared").fit(*sides[0]), lambda: fitted[0].fit(*sides[0])):
        with pytest.raises(InvalidInputError, match="several layers"):
            call()


PLAIN = contrast()


@pytest.mark.parametrize("data", [PLAIN, massive_contrast()], ids=["plain", "massive"])
def test_the_bridge_keeps_norms_and_carries_to_the_positives(
    data: tuple[torch.Tensor, torch.Tensor],
) -> None:
    method = Bridge(fitting=Fitting(folds=0)).fit(*data)
    positive, negative = data
    moved = method.steer(negative, interpolation=1.0)
    torch.testing.assert_close(moved.norm(dim=1), negative.norm(dim=1))
    if data[0] is PLAIN[0]:  # with a massive coordinate all directions are nearly equal
        rise = method.barrier.value(moved) - method.barrier.value(negative)
        assert float(rise.mean()) > 0
        assert float((moved - negative).norm(dim=1).mean()) > float(
            (method.steer(positive, interpolation=1.0) - positive).norm(dim=1).mean()
        )
    field = method.field(negative)
    torch.testing.assert_close(field.norm(dim=1), torch.ones(len(field), dtype=field.dtype))
    assert float((field * negative).sum(dim=1).abs().max()) < 1e-3 * float(negative.norm())


def test_the_bridge_by_hand() -> None:
    """One plan of two and two directions: V points from the negatives to the positives."""
    east, north = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    tilt = torch.tensor([0.1, -0.1]).double()
    positive = torch.stack([north * t.cos() + east * t.sin() for t in tilt])
    negative = torch.stack([east * t.cos() + north * t.sin() for t in tilt])
    method = Bridge(concentration=1.0, fitting=Fitting(folds=0)).fit(positive, negative)
    # The marginals of the plan, of 2 by 2: the last step makes those of the positives exact.
    phi, psi = method.potentials_
    plan = (phi[:, None] + psi - method.costs_).exp()
    torch.testing.assert_close(plan.sum(dim=0), torch.full((2,), 0.5).double())
    q = 3 * east[None]
    torch.testing.assert_close(method.field(q), north[None])
    # θ₀ is the angle to r̂, 135° away; δ = σ(-2 cos θ₀); the arc λδθ₀.
    angle = 0.75 * math.pi
    arc = 0.5 * torch.sigmoid(torch.tensor(-2 * math.cos(angle))) * angle
    expected = 3 * torch.stack([arc.cos(), arc.sin()]).double()
    torch.testing.assert_close(method.steer(q)[0], expected, rtol=1e-6, atol=1e-6)


def test_what_no_bridge_is_fitted_to() -> None:
    same = torch.ones(4, 3)
    with pytest.raises(InvalidInputError, match="carry to"):
        Bridge().fit(same + 1, same)
    for wrong in ({"max_examples": 1}, {"n_steps": 0}, {"concentration": 0.0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            Bridge(**wrong).fit(*contrast())  # type: ignore[arg-type]


def test_values_of_consecutive_tokens_are_alike_where_asked_for() -> None:
    """Texts of four tokens whose reward is that of the text; tokens are noisy."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.tensor([0.0, 1.0]).repeat(30).repeat_interleave(4)
    noise = 2 * torch.randn(240, 5, generator=generator)
    a = torch.stack([rewards] * 5, dim=1) + noise
    groups = [i // 4 for i in range(240)]
    rough = ValueBarrier(folds=0, training=QUICK).fit_rewards(a, rewards, groups)
    smooth = ValueBarrier(folds=0, training=QUICK, consistency=3.0).fit_rewards(a, rewards, groups)

    def jumps(barrier: ValueBarrier) -> float:
        values = barrier.value(a).view(60, 4)
        return float((values[:, 1:] - values[:, :-1]).square().mean())

    assert jumps(smooth) < 0.5 * jumps(rough)
    with pytest.raises(InvalidInputError, match="consistency"):
        ValueBarrier(consistency=-1.0).fit_rewards(a, rewards, groups)
