"""Ablation, two-sided levels, least intervention, gated directions, the null-space metric."""

import pytest
import torch

from barrier_cases import WIDTH, contrast, massive_contrast, queries
from odesteer.barriers import Barrier, LinearBarrier, MinimumBarrier, PolynomialBarrier, Raw
from odesteer.errors import InvalidInputError
from odesteer.flows import Covariance, Euclidean, Metric, NullSpace
from odesteer.methods import Ablation, Amount, GatedDirection, LeastIntervention, ODESteer, TwoSided

POLYNOMIAL = PolynomialBarrier(folds=0)
LINEAR = LinearBarrier(folds=0, inputs=Raw())


def test_ablation_by_hand() -> None:
    """Means 2 and 0 along the first axis: that component becomes 0, or 2."""
    positive = torch.tensor([[3.0, 1.0], [1.0, -1.0]]).repeat(4, 1)
    negative = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).repeat(4, 1)
    a = torch.tensor([[5.0, 7.0], [-2.0, 3.0]])
    for target, value in (("zero", 0.0), ("positive", 2.0), ("negative", 0.0)):
        method = Ablation(target).fit(positive, negative)  # type: ignore[arg-type]
        steered = method.steer(a)
        torch.testing.assert_close(steered, torch.tensor([[value, 7.0], [value, 3.0]]))
        torch.testing.assert_close(method.steer(a, interpolation=0.5), (a + steered) / 2)
    with pytest.raises(InvalidInputError, match="'none'"):
        Ablation("none").fit(positive, negative)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [contrast(), massive_contrast()], ids=["plain", "massive"])
def test_ablation_is_idempotent_and_leaves_the_rest(
    data: tuple[torch.Tensor, torch.Tensor],
) -> None:
    method = Ablation("positive").fit(*data)
    once = method.steer(data[1])
    torch.testing.assert_close(method.steer(once), once)
    rest = torch.eye(WIDTH, dtype=once.dtype) - torch.outer(method.direction_, method.direction_)
    torch.testing.assert_close(once @ rest, data[1] @ rest, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("barrier", [POLYNOMIAL, LINEAR], ids=["polynomial", "linear"])
@pytest.mark.parametrize("level", [-1.0, -0.4, 0.0, 0.7, 1.2])
def test_a_two_sided_level_is_reached_from_both_sides_and_held(
    barrier: Barrier, level: float
) -> None:
    method, a = _fitted(TwoSided, barrier), queries(20)
    value = method.barrier.threshold(level)
    solution = method.solve(a, Amount("level", level))
    reached = solution.reached
    assert reached is not None
    assert int(reached.sum()) >= 15
    end = method.barrier.value(solution.state)
    torch.testing.assert_close(
        end[reached], torch.full_like(end[reached], float(value)), rtol=1e-4, atol=1e-4
    )
    again = method.steer(solution.state, level=level)
    assert float((again - solution.state)[reached].norm(dim=1).max()) < 1e-3


def test_a_two_sided_level_of_a_linear_barrier_is_an_ablation() -> None:
    """The flow to a value of a linear function is the projection onto its hyperplane."""
    method, a = _fitted(TwoSided, LINEAR), queries(20)
    steered = method.steer(a, level=0.3)
    w = method.barrier.gradient(a)[0]
    h, value = method.barrier.value(a), method.barrier.threshold(0.3)
    expected = a + ((value - h) / (w @ w))[:, None] * w
    torch.testing.assert_close(steered, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", [Euclidean(), Covariance()], ids=repr)
@pytest.mark.parametrize("barrier", [POLYNOMIAL, LINEAR], ids=["polynomial", "linear"])
def test_the_least_intervention_is_no_longer_than_a_flow(
    barrier: Barrier, metric: Euclidean | Covariance
) -> None:
    positive, negative = contrast()
    least = LeastIntervention(barrier, metric).fit(positive, negative)
    flow = ODESteer(barrier, metric=metric).fit(positive, negative)
    for level in (0.0, 0.5, 1.0):
        ours, theirs = (method.steer(negative, level=level) for method in (least, flow))
        value = least.barrier.threshold(level)
        both = [(least.barrier.value(x) - value).abs() < 1e-3 for x in (ours, theirs)]
        there = both[0] & both[1]
        assert int(there.sum()) > 10

        def distance(x: torch.Tensor) -> torch.Tensor:
            moved = x - negative
            if isinstance(metric, Euclidean):
                return moved.norm(dim=1)
            inverse = torch.linalg.inv(least.metric_.matrix_.double())
            return (moved * (moved @ inverse)).sum(dim=1).sqrt()

        assert bool((distance(ours)[there] <= distance(theirs)[there] * (1 + 1e-3) + 1e-6).all())


def test_least_intervention_leaves_what_satisfies_the_barrier() -> None:
    method, a = _fitted(LeastIntervention, POLYNOMIAL), queries(40)
    satisfied = method.barrier.value(a) >= 0
    assert 5 < int(satisfied.sum()) < 35
    assert torch.equal(method.steer(a, level=0.0)[satisfied], a[satisfied])
    with pytest.raises(InvalidInputError, match="n_steps"):
        LeastIntervention(n_steps=0).fit(*contrast())


def test_a_gated_direction_is_open_on_negatives_and_nearly_closed_on_positives() -> None:
    """Classes that differ along one axis, and positives without any spread along another."""
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 200, 8, generator=generator)
    positive[:, 4:] *= 0.01
    negative[:, 4] = 3 + 0.1 * negative[:, 4]
    method = GatedDirection().fit(positive, negative)
    opened = [
        (method.steer(x) - x).norm(dim=1) / method.direction_.norm() for x in (positive, negative)
    ]
    assert float(opened[0].max()) < 0.05
    assert abs(float(opened[1].mean()) - 1) < 0.05
    moved = method.steer(negative) - negative
    cosine = torch.nn.functional.cosine_similarity(moved, method.direction_, dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_the_null_space_metric_leaves_the_directions_of_positives() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 200, 8, generator=generator)
    positive[:, 4:] *= 0.01
    negative[:, 4:] += 1
    method = ODESteer(PolynomialBarrier(folds=0), metric=NullSpace(0.5)).fit(positive, negative)
    moved = method.steer(negative, strength=0.5) - negative
    assert float(moved[:, 4:].norm(dim=1).min()) > 0
    assert float(moved[:, :4].norm(dim=1).max()) < 0.05 * float(moved.norm(dim=1).mean())
    with pytest.raises(InvalidInputError, match="share"):
        NullSpace(0.0).fit(positive, negative)


def _fitted(kind: type, barrier: Barrier):  # type: ignore[no-untyped-def]
    return kind(barrier).fit(*contrast())


@pytest.mark.parametrize("metric", [Euclidean(), Covariance()], ids=["euclidean", "covariance"])
def test_two_linear_barriers_are_two_half_spaces(metric: Metric) -> None:
    """The displacement is Σ λ_i G∇h_i with λ ≥ 0, and 0 for a barrier that is above the level."""
    positive, negative = contrast()
    one = LINEAR.clone().fit(positive, negative)
    other = LINEAR.clone().fit(positive.flip(1), negative.flip(1))
    sides = {"positive": positive + positive.flip(1), "negative": negative + negative.flip(1)}
    barrier = MinimumBarrier.of(one, other, **sides)
    method = LeastIntervention(barrier, metric).fit(positive, negative)
    a = queries(60)
    tau = float(method.barrier.threshold(0.5))
    moved = method.steer(a, level=0.5)
    parts = method.barrier.parts_and_gradients(moved)[0] - tau  # type: ignore[attr-defined]
    assert float(parts.min()) > -1e-4
    gradients = method.barrier.parts_and_gradients(a)[1][:, 0]  # type: ignore[attr-defined]
    ascents = method.metric.apply(gradients)
    factors = torch.linalg.lstsq(ascents.T, (moved - a).T).solution
    torch.testing.assert_close(factors.T @ ascents, moved - a, rtol=1e-4, atol=1e-4)
    assert float(factors.min()) > -1e-4
    active = parts.abs() < 1e-3
    assert float(factors[~active].abs().max()) < 1e-3
    assert int(active.all(dim=0).sum()) > 0  # both are active for some, one for others
    assert int((active.sum(dim=0) == 1).sum()) > 0
    # Below the level nothing changes: there one of the two is enough.
    assert method.solve(a, Amount("level", -0.5)).state.shape == a.shape
    levels = torch.tensor([0.5, -0.5]).repeat(30).to(a)
    mixed = method.steer(a, level=levels)
    torch.testing.assert_close(mixed[::2], moved[::2])
