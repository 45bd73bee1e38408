"""Published forms beside ours: Spherical Steering, turns by an angle, support, HPR on both."""

import math

import pytest
import torch

from barrier_cases import contrast, massive_contrast
from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.artifact.layer_control import pid
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, HPR, Angular, LinearAcT, ODESteer, SphericalSteering

ALONG_X = (
    torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64).repeat(4, 1),
    torch.tensor([[-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64).repeat(4, 1),
)


def test_spherical_steering_by_hand() -> None:
    """r̂ along x; δ = -tanh(κ cos θ), the share λ(δ - β)/(1 - β) of the angle θ."""
    method = SphericalSteering(2.0, 0.1, 0.5, folds=0).fit(*ALONG_X)
    angles = torch.tensor([0.5, 1.5, 2.0, 3.0], dtype=torch.float64)
    a = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    moved = method.steer(a)
    delta = -torch.tanh(2 * angles.cos())
    share = (0.5 * (delta - 0.1) / 0.9).clamp(0, 1)
    expected = angles * (1 - share)
    assert expected[0] == angles[0]
    assert float(expected[3]) < 2
    torch.testing.assert_close(torch.atan2(moved[:, 1], moved[:, 0]), expected)
    torch.testing.assert_close(moved.norm(dim=1), a.norm(dim=1))
    assert torch.equal(method.acts(a), delta > 0.1)
    for wrong in ({"concentration": 0.0}, {"threshold": 1.0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            SphericalSteering(**wrong).fit(*ALONG_X)


@pytest.mark.parametrize("data", [contrast(), massive_contrast()], ids=["plain", "massive"])
def test_turns_by_an_angle_keep_norms_and_angles_in_the_plane(
    data: tuple[torch.Tensor, torch.Tensor],
) -> None:
    method = Angular(angle=40.0, turn="by", max_strength=None, folds=0).fit(*data)
    a = data[1]
    moved = method.steer(a)
    torch.testing.assert_close(moved.norm(dim=1), a.norm(dim=1))
    before, after = a @ method.plane_.T, moved @ method.plane_.T
    turn = torch.atan2(before[:, 1], before[:, 0]) - torch.atan2(after[:, 1], after[:, 0])
    expected = torch.full_like(turn, math.radians(40))
    torch.testing.assert_close(torch.remainder(turn, 2 * math.pi), expected)
    # A rotation: the turn of twice the angle is two turns, and the opposite one undoes it.
    torch.testing.assert_close(method.steer(moved), method.steer(a, interpolation=2.0))
    torch.testing.assert_close(method.steer(moved, interpolation=-1.0), a)
    with pytest.raises(InvalidInputError, match="turn"):
        Angular(turn="past").fit(*data)  # type: ignore[arg-type]


def test_the_support_mask_leaves_coordinates_outside_the_range() -> None:
    negative = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    positive = negative + torch.tensor([10.0, 20.0], dtype=torch.float64)
    a = torch.tensor([[0.5, 2.5], [-0.1, 1.0]], dtype=torch.float64)
    moved = LinearAcT(support=True).fit(positive, negative).steer(a)
    torch.testing.assert_close(moved, torch.tensor([[10.5, 2.5], [-0.1, 21.0]]).double())
    everywhere = LinearAcT().fit(positive, negative).steer(a)
    torch.testing.assert_close(everywhere, a + torch.tensor([10.0, 20.0]).double())


def test_angles_learned_on_both_classes_are_smaller_on_positives() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, 80, 6, generator=generator)
    positive, negative = draw[0] + 3, draw[1] - 3
    one, both = (HPR(learners=who, folds=0).fit(positive, negative) for who in ("negative", "both"))
    assert float(both.angle(positive).mean()) < 0.5 * float(both.angle(negative).mean())
    assert float(both.angle(positive).mean()) < float(one.angle(positive).mean())
    with pytest.raises(InvalidInputError, match="learners"):
        HPR(learners="all").fit(positive, negative)  # type: ignore[arg-type]


def _set(n: int = 4) -> SteererSet:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(n, 6, generator=generator)
    return SteererSet(
        Steerer(CAA.from_direction(v, T=2.0), Site(3 * k)) for k, v in enumerate(directions)
    )


def test_pid_equals_its_definition() -> None:
    original = _set()
    r = [s.method.constant_displacement() for s in original]
    controlled = pid(original, 0.5, 0.25, 2.0)
    a = torch.randn(3, 6)
    for k, steerer in enumerate(controlled):
        u = 0.5 * r[k] + 0.25 * sum(r[:k], torch.zeros(6))
        u = u + 2.0 * (r[k] - r[k - 1]) if k else u
        torch.testing.assert_close(steerer.steer(a), a + u)
        assert steerer.site == original[k].site
    for before, after in zip(original, pid(original), strict=True):
        torch.testing.assert_close(before.steer(a), after.steer(a))


def test_pid_refuses_what_is_not_constant() -> None:
    mixed = SteererSet([Steerer(ODESteer().fit(*contrast()), Site(1))])
    with pytest.raises(InvalidInputError, match="ODESteer"):
        pid(mixed)
    parts = [
        Steerer(s.method, Site(k, part="heads" if k else "residual")) for k, s in enumerate(_set(2))
    ]
    with pytest.raises(InvalidInputError, match="residual and heads"):
        pid(SteererSet(parts))
    with pytest.raises(InvalidInputError, match="integral"):
        pid(_set(), integral=float("nan"))
    with pytest.raises(InvalidInputError, match="no displacement"):
        pid(_set(), 0.0)
