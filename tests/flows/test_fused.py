"""The numba Euler loop gives what the step-by-step one gives."""

import math

import pytest
import torch
from torch import Tensor

import odesteer.flows.fused as fused
from odesteer.barriers import (
    Barrier,
    Centred,
    LinearBarrier,
    MeanDifferenceBarrier,
    PolynomialBarrier,
    Raw,
    UnitSphere,
)
from odesteer.flows import Euler, GradientField, ReachValue, Solution, solve

pytest.importorskip("numba", reason="the compiled loop needs odesteer[fast]")

BARRIERS = [
    PolynomialBarrier(folds=0),
    PolynomialBarrier(gamma=1.0, C=10.0, inputs=Centred(), folds=0),
    LinearBarrier(inputs=Raw(), folds=0),
    MeanDifferenceBarrier(inputs=UnitSphere(), folds=0),
]


def _fitted(barrier: Barrier) -> tuple[Barrier, Tensor]:
    generator = torch.Generator().manual_seed(3)
    positive = torch.randn(60, 24, generator=generator) + 0.5
    negative = torch.randn(60, 24, generator=generator) * 1.3 - 0.5
    return barrier.clone().fit(positive, negative), torch.randn(9, 24, generator=generator) * 2


def _stepwise(monkeypatch: pytest.MonkeyPatch, *args: object, **kwargs: object) -> Solution:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "has_numba", lambda: False)
        return solve(*args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("barrier", BARRIERS, ids=repr)
@pytest.mark.parametrize("T", [3.0, -2.0, torch.linspace(-3, 3, 9, dtype=torch.float64)])
def test_fixed_time(barrier: Barrier, T: float | Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, a = _fitted(barrier)
    arguments = (GradientField(fitted), a.double(), T, Euler(17))
    ours, expected = solve(*arguments), _stepwise(monkeypatch, *arguments)
    torch.testing.assert_close(ours.state, expected.state, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.time, expected.time)


@pytest.mark.parametrize("barrier", BARRIERS, ids=repr)
@pytest.mark.parametrize("T", [6.0, -6.0])
def test_stopping_at_a_value(barrier: Barrier, T: float, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, a = _fitted(barrier)
    a = a.double()
    until = ReachValue(fitted.value(a).quantile(0.8 if T > 0 else 0.2))
    arguments = (GradientField(fitted), a, T, Euler(12))
    ours = solve(*arguments, until=until)
    expected = _stepwise(monkeypatch, *arguments, until=until)
    assert ours.reached is not None
    assert expected.reached is not None
    assert bool(ours.reached.any())
    assert torch.equal(ours.reached, expected.reached)
    torch.testing.assert_close(ours.state, expected.state, rtol=1e-5, atol=1e-5)
    at_start = T * (fitted.value(a) - until.value) >= 0
    assert torch.equal(ours.state[at_start], a[at_start])
    gap = fitted.value(ours.state[ours.reached & ~at_start]) - until.value
    # The stored basis is orthonormal to float32 rounding.
    assert float(gap.abs().max()) < 1e-5


MANY = 200


def _many_rows() -> Tensor:
    return torch.randn(43, 24, generator=torch.Generator().manual_seed(5)) * 2


@pytest.mark.parametrize("barrier", BARRIERS, ids=repr)
@pytest.mark.parametrize("T", [3.0, -2.0, torch.linspace(-3, 3, 43, dtype=torch.float64)])
def test_many_steps_of_single_precision(
    barrier: Barrier, T: float | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, _ = _fitted(barrier)
    a, field = _many_rows(), GradientField(fitted)
    ours = solve(field, a, T, Euler(MANY))
    expected = _stepwise(monkeypatch, field, a.double(), T, Euler(MANY))
    torch.testing.assert_close(ours.state.double(), expected.state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.time.double(), expected.time, rtol=1e-6, atol=1e-6)
    for row in (0, 31, 32, 42):
        time = T if isinstance(T, float) else T[row]
        alone = solve(field, a[row], time, Euler(MANY)).state
        torch.testing.assert_close(ours.state[row], alone, rtol=1e-5, atol=1e-5)


def test_rows_without_a_gradient_leave_the_others_alone() -> None:
    fitted, _ = _fitted(BARRIERS[0])
    a, field = _many_rows(), GradientField(fitted)
    clean = solve(field, a, 2.0, Euler(MANY)).state
    bad = a.clone()
    bad[1], bad[2], bad[3] = 0.0, math.nan, math.inf
    solution = solve(field, bad, 2.0, Euler(MANY))
    assert solution.time[1:4].tolist() == [0.0] * 3
    assert torch.equal(solution.state[1:4].nan_to_num(7.0), bad[1:4].nan_to_num(7.0))
    good = torch.ones(len(a), dtype=torch.bool)
    good[1:4] = False
    torch.testing.assert_close(solution.state[good], clean[good], rtol=1e-6, atol=1e-6)
    assert bool((solution.time[good] > 1.99).all())


def test_gradients_take_the_step_by_step_path() -> None:
    fitted, a = _fitted(BARRIERS[0])
    a = a.double().requires_grad_()
    solve(GradientField(fitted), a, 1.0, Euler(3)).state.sum().backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())
