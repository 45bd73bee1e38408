"""The compiled Euler loop gives what the step-by-step one gives."""

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
        patch.setattr(fused, "_has_numba", lambda: False)
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


def test_gradients_take_the_step_by_step_path() -> None:
    fitted, a = _fitted(BARRIERS[0])
    a = a.double().requires_grad_()
    solve(GradientField(fitted), a, 1.0, Euler(3)).state.sum().backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())
