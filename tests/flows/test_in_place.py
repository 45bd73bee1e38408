"""Flows in place give what `solve` gives, on the CPU and in Triton."""

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

import odesteer.flows.fused as fused
from odesteer.barriers import Barrier, Centred, FrozenBarrier, PolynomialBarrier, ValueBarrier
from odesteer.flows import (
    RK4,
    Covariance,
    Euler,
    FlowInPlace,
    GradientField,
    Metric,
    ReachValue,
    Solver,
    flow_in_place,
    solve,
)

D, N = 24, 9
CPU = torch.device("cpu")
BARRIERS: list[Barrier] = [
    PolynomialBarrier(folds=0),
    PolynomialBarrier(gamma=1.0, C=10.0, inputs=Centred(), folds=0),
    FrozenBarrier(PolynomialBarrier(folds=0)),
]


def _clouds() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    positive = torch.randn(60, D, generator=generator) + 0.5
    return positive, torch.randn(60, D, generator=generator) * 1.3 - 0.5


def _fitted(barrier: Barrier) -> Barrier:
    if isinstance(barrier, FrozenBarrier):
        barrier = FrozenBarrier(_fitted(barrier.barrier))
    return barrier.clone().fit(*_clouds())


def _activations() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(4)) * 2


@pytest.fixture(params=["one call", "products", "triton"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each implementation in turn, on the CPU."""
    needed = "triton" if request.param == "triton" else "numba"
    if find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    if request.param != "triton":
        from odesteer.flows.fused import in_place_cpu

        large = 0 if request.param == "products" else math.inf
        monkeypatch.setattr(in_place_cpu, "LARGE", large)
    if request.param == "triton":
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # before the kernels are made
        from odesteer.flows.fused.in_place_gpu import InPlaceOnGPU

        monkeypatch.setattr(fused, "_on_device", lambda device, *how: InPlaceOnGPU(*how))


def _prepared(
    field: GradientField, T: float | Tensor, value: float | Tensor | None, n: int = N
) -> FlowInPlace:
    until = None if value is None else ReachValue(value)
    flow = flow_in_place(field, Euler(10), T, until, n, CPU)
    assert flow is not None
    return flow


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("barrier", BARRIERS, ids=repr)
@pytest.mark.parametrize("T", [3.0, -2.0, torch.linspace(-3, 3, N)[:, None]])
def test_for_a_time(barrier: Barrier, T: float | Tensor) -> None:
    field, a = GradientField(_fitted(barrier)), _activations()[:, None]
    expected = solve(field, a, T, Euler(10)).state
    moved = a.clone()
    assert _prepared(field, T, None).move(moved)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(moved, a, atol=0.1)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("barrier", BARRIERS, ids=repr)
@pytest.mark.parametrize("up", [True, False])
def test_to_a_value_for_each_row(barrier: Barrier, up: bool) -> None:
    fitted = _fitted(barrier)
    field, a = GradientField(fitted), _activations()[:, None]
    T = 6.0 if up else -6.0
    value = fitted.value(a) + torch.linspace(-0.4, 0.6, N)[:, None] * (1 if up else -1)
    expected = solve(field, a, T, Euler(10), until=ReachValue(value))
    moved = a.clone()
    assert _prepared(field, T, value).move(moved)
    torch.testing.assert_close(moved, expected.state, rtol=1e-4, atol=1e-4)
    told = _prepared(field, T, value).solve(a)
    assert told is not None
    assert torch.equal(told.state, moved)
    torch.testing.assert_close(told.time, expected.time, rtol=1e-3, atol=1e-3)
    assert told.reached is not None
    assert torch.equal(told.reached, expected.reached)
    there = expected.time == 0
    assert 0 < int(there.sum()) < N
    assert torch.equal(moved[there], a[there])


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("barrier", BARRIERS[:2], ids=repr)
def test_a_massive_coordinate(barrier: Barrier) -> None:
    sides, a = _clouds(), _activations()[:, None]
    for states in (*sides, a):
        states[..., 3] *= 1000
    fitted = barrier.clone().fit(*sides)
    value, T = fitted.value(a).quantile(0.8), 3000.0
    expected = solve(GradientField(fitted), a, T, Euler(10), until=ReachValue(value))
    moved = a.clone()
    assert _prepared(GradientField(fitted), T, value).move(moved)
    assert bool((expected.time > 0).any())
    tolerance = 1e-3 * float(expected.time.max())
    torch.testing.assert_close(moved, expected.state, rtol=1e-5, atol=tolerance)


@pytest.mark.usefixtures("form")
def test_some_rows_of_a_batch() -> None:
    field, a = GradientField(_fitted(BARRIERS[0])), _activations()[:, None]
    rows, T = torch.tensor([1, 4, 5, 6, 8]), torch.tensor([[1.0], [2.0], [-1.0], [0.0], [3.0]])
    moved = a.clone()
    assert _prepared(field, T, None, len(rows)).over(rows).move(moved)
    expected = a.clone()
    expected[rows] = solve(field, a[rows], T, Euler(10)).state
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)
    kept = [0, 2, 3, 6, 7]
    assert torch.equal(moved[kept], a[kept])


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("stops", [True, False])
def test_unusable_activations_stay_to_the_bit(stops: bool) -> None:
    field, a = GradientField(_fitted(BARRIERS[0])), _activations()[:, None]
    value = 10.0 if stops else None
    clean = a.clone()
    assert _prepared(field, 2.0, value).move(clean)
    a[0], a[2], a[3], a[4], a[5] = 0.0, math.inf, 1e-30, 3e19, -0.0
    a[1, 0, 7] = math.nan
    moved = a.clone()
    _prepared(field, 2.0, value).move(moved)
    assert torch.equal(moved[:6].view(torch.int32), a[:6].view(torch.int32))
    assert torch.equal(moved[6:], clean[6:])
    told = _prepared(field, 2.0, value).solve(a)
    assert told is not None
    assert told.usable is not None
    assert told.usable[:, 0].tolist() == [False] * 6 + [True] * 3
    assert told.time[:6].tolist() == [[0.0]] * 6
    assert told.time.dtype == torch.float32
    if stops:
        assert told.reached is not None
        assert not told.reached[:6].any()
    else:
        assert told.reached is None
    far = 1e18 * _activations()[:, None]
    far[0] *= 30  # whose squares still fit
    told = _prepared(field, 3.3e38, None).solve(far)  # ends beyond the largest float32
    assert told is not None
    assert told.usable is not None
    assert not told.usable.all()
    assert bool(torch.isfinite(told.state).all())
    left = ~told.usable[:, 0]
    assert torch.equal(told.state[left], far[left])
    assert told.time[left].tolist() == [[0.0]] * int(left.sum())


@pytest.mark.usefixtures("form")
def test_unsupported_types_and_layouts_are_refused_untouched() -> None:
    flow, a = _prepared(GradientField(_fitted(BARRIERS[0])), 1.0, None), _activations()
    for other in (a[:, None].double(), a.T.contiguous().T[:, None], a[:1].expand(N, D)[:, None]):
        before = other.clone()
        assert not flow.move(other)
        assert torch.equal(other, before)


@pytest.mark.parametrize(
    ("barrier", "metric", "solver"),
    [
        (BARRIERS[0], None, RK4()),
        (BARRIERS[0], Covariance(), Euler()),
        (ValueBarrier((4,), folds=0, max_epochs=2, keep_best=True), None, Euler()),
    ],
)
def test_flows_without_an_in_place_form(
    barrier: Barrier, metric: Metric | None, solver: Solver
) -> None:
    fitted = _fitted(barrier)
    field = GradientField(fitted, *([] if metric is None else [metric.fit(*_clouds())]))
    assert flow_in_place(field, solver, 1.0, None, 1, CPU) is None


def test_the_kernels_compile_for_a_gpu() -> None:
    """Down to machine code, which needs the compiler but no GPU."""
    import subprocess
    import sys

    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    code = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from odesteer.flows.fused import in_place_gpu as gpu

def built(kernel, constants):
    pointers = {"states": "*bf16", "rows": "*i64", "offset": "fp32"}
    numbers = dict.fromkeys(("stride", "width", "rank", "n_steps", "most_steps"), "i32")
    named = {**pointers, **numbers, **dict.fromkeys(constants, "constexpr")}
    types = {name: named.get(name, "*fp32") for name in kernel.arg_names}
    triton.compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", 90, 32))

for radial, stops, distance in ((True, True, True), (True, True, False), (False, False, False)):
    built(gpu._flow, dict(radial=radial, stops=stops, divides_distance=distance, bisections=24,
          block_width=1024, block_rank=128))
built(gpu._lift, dict(block_width=4096))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
