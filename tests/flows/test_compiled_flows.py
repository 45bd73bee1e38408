"""Flows compiled by `torch.compile`: what `solve` gives, in few graphs, or plain with a warning."""

import copy
import pickle
import shutil
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from barrier_cases import WIDTH, contrast, fitted, queries
from flow_cases import FIXED_STEP
from odesteer.barriers import Barrier
from odesteer.flows import (
    RK4,
    CompiledFlow,
    CompilerWarning,
    Covariance,
    Euler,
    FixedStep,
    GradientField,
    MatrixMetric,
    Metric,
    Midpoint,
    ReachValue,
    Solution,
    fused,
    solve,
)

pytestmark = pytest.mark.usefixtures("no_graphs_of_others")

BARRIERS = (
    "polynomial-2",
    "polynomial-2-centred",
    "polynomial-3",
    "sketch-3",
    "fourier",
    "neural",
    "value",
    "minimum",
    "product",
    "frozen",
)


class Backend:
    """Runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.n_graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.n_graphs += 1
        return graph.forward


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "has_numba", lambda: False)


def same(solution: Solution, expected: Solution, atol: float = 2e-5) -> None:
    torch.testing.assert_close(solution.state, expected.state, rtol=1e-5, atol=atol)
    torch.testing.assert_close(solution.time, expected.time, rtol=1e-4, atol=atol)
    assert solution.state.dtype == expected.state.dtype
    if expected.reached is None:
        assert solution.reached is None
    else:
        assert solution.reached is not None
        assert torch.equal(solution.reached, expected.reached)


def values(barrier: Barrier, a: Tensor) -> Tensor:
    """One to reach for each of ``a``: some are reached at the start, some never."""
    h = barrier.value(a)
    spread = float(barrier.value(torch.cat(contrast()).to(a)).std())
    return h + spread * torch.linspace(-0.2, 4, len(a)).to(a)


def both_agree(field: GradientField, solver: FixedStep, dtype: torch.dtype) -> None:
    a = queries().to(dtype)
    backend = Backend()
    flow = CompiledFlow(backend)
    T = torch.linspace(-1, 2, len(a)).to(a)
    same(flow.solve(field, a, T, solver), solve(field, a, T, solver))
    until = ReachValue(values(field.barrier, a))
    expected = solve(field, a, 2.0, solver, until=until)
    assert expected.reached is not None
    assert expected.reached.any()
    same(flow.solve(field, a, 2.0, solver, until=until), expected)
    assert backend.n_graphs > 0


@pytest.mark.parametrize("name", BARRIERS)
def test_every_kind_of_barrier(name: str, without_numba: None) -> None:
    both_agree(GradientField(fitted(name)), Euler(10), torch.float32)


@pytest.mark.parametrize("solver", FIXED_STEP.values(), ids=FIXED_STEP)
@pytest.mark.parametrize("name", ["polynomial-2", "neural"])
def test_every_solver_of_equal_steps(name: str, solver: FixedStep, without_numba: None) -> None:
    both_agree(GradientField(fitted(name)), solver, torch.float64)


@pytest.mark.parametrize("metric", [Covariance(), MatrixMetric(torch.eye(WIDTH) * 2)])
def test_metrics(metric: Metric) -> None:
    field = GradientField(fitted("polynomial-2"), metric.clone().fit(*contrast()))
    both_agree(field, RK4(4), torch.float32)


def test_three_graphs_of_a_piece_whatever_the_batch() -> None:
    barrier, backend = fitted("neural"), Backend()
    field, flow = GradientField(barrier), CompiledFlow(backend)
    every = torch.cat(contrast())

    def run(n: int, T: float | Tensor, value: float | Tensor) -> None:
        for until in (None, ReachValue(value)):
            solution = flow.solve(field, every[:n], T, Midpoint(10), until=until)
            same(solution, solve(field, every[:n], T, Midpoint(10), until=until))

    for n in (1, 2, 3):
        run(n, 1.0, 0.5)
    n_graphs = backend.n_graphs
    assert n_graphs <= 3 * 8
    for n in (1, 5, 11, 2, 20):
        run(n, -0.5, 1.5)
        run(n, torch.linspace(-1, 1, n), torch.linspace(0, 3, n))
    assert backend.n_graphs == n_graphs
    solution = flow.solve(field, every[:6].reshape(2, 3, WIDTH), 1.0, Midpoint(10))
    assert solution.state.shape == (2, 3, WIDTH)
    assert solution.time.shape == (2, 3)


def test_a_solver_that_changes_gets_graphs_of_its_own() -> None:
    field, a, flow = GradientField(fitted("neural")), queries(), CompiledFlow(Backend())
    solver = Midpoint(10)
    same(flow.solve(field, a, 2.0, solver), solve(field, a, 2.0, solver))
    solver.n_steps = 12
    same(flow.solve(field, a, 2.0, solver), solve(field, a, 2.0, solver), atol=1e-9)
    same(flow.solve(field, a, 2.0, RK4(3)), solve(field, a, 2.0, RK4(3)), atol=1e-9)


def test_flows_do_not_share_graphs() -> None:
    first, second = Backend(), Backend()
    a = queries()
    for backend in (first, second):
        CompiledFlow(backend).solve(GradientField(fitted("neural")), a, 1.0, RK4(4))
    assert first.n_graphs == second.n_graphs == 3


def test_many_flows_at_once() -> None:
    # More than the graphs that the compiler would keep for one piece of code.
    a = queries()[:2]
    for i in range(10):
        field = GradientField(fitted("neural" if i % 2 else "polynomial-3"))
        flow = CompiledFlow(Backend())
        same(flow.solve(field, a, 1.0, Euler(2)), solve(field, a, 1.0, Euler(2)))


def test_what_numba_does_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "has_numba", lambda: True)
    monkeypatch.setattr(sys.modules["odesteer.flows.solve"], "fused_euler", lambda *rest: None)
    field, a, backend = GradientField(fitted("polynomial-2")), queries(), Backend()
    CompiledFlow(backend).solve(field, a, 1.0, Euler(10))
    assert backend.n_graphs == 0
    CompiledFlow(backend).solve(field, a, 1.0, Midpoint(10))
    assert backend.n_graphs > 0


def test_gradients_go_the_plain_way() -> None:
    field, backend = GradientField(fitted("neural")), Backend()
    flow, gradients = CompiledFlow(backend), []
    for run in (flow.solve, solve):
        a = queries().requires_grad_()
        run(field, a, 1.0, Midpoint(3)).state.square().sum().backward()
        gradients.append(a.grad)
    torch.testing.assert_close(*gradients)
    assert backend.n_graphs == 0


def test_nothing_to_move() -> None:
    field, flow = GradientField(fitted("neural")), CompiledFlow(Backend())
    assert flow.solve(field, queries()[:0], 1.0, Midpoint(3)).state.shape == (0, WIDTH)


def test_a_compiler_that_fails_warns_once_and_the_flow_is_plain() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such compiler")

    field, a, flow = GradientField(fitted("neural")), queries(), CompiledFlow(broken)
    with pytest.warns(CompilerWarning, match=r"no such compiler.*C\+\+ compiler"):
        solution = flow.solve(field, a, 1.0, Midpoint(3))
    same(solution, solve(field, a, 1.0, Midpoint(3)), atol=0)
    same(flow.solve(field, a, 2.0, Midpoint(3)), solve(field, a, 2.0, Midpoint(3)), atol=0)


def test_no_compiler_on_the_machine() -> None:
    _load_compiler()
    field, a, flow = GradientField(fitted("neural")), queries(), CompiledFlow()
    config = torch._inductor.config
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}),
        pytest.warns(CompilerWarning, match=r"C\+\+ compiler"),
    ):
        solution = flow.solve(field, a, 1.0, Midpoint(3))
    same(solution, solve(field, a, 1.0, Midpoint(3)), atol=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_with_the_compiler_of_pytorch() -> None:
    _load_compiler()
    field, a, flow = GradientField(fitted("neural")), queries().float(), CompiledFlow()
    until = ReachValue(values(field.barrier, a))
    expected = solve(field, a, 2.0, Midpoint(2), until=until)
    same(flow.solve(field, a, 2.0, Midpoint(2), until=until), expected)
    T = torch.linspace(-1, 2, len(a))
    same(flow.solve(field, a, T, Midpoint(2)), solve(field, a, T, Midpoint(2)))


def _load_compiler() -> None:
    """Its modules call what PyTorch itself deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._inductor.compile_fx  # noqa: F401


def test_copies_make_graphs_of_their_own() -> None:
    field, a, backend = GradientField(fitted("neural")), queries(), "eager"
    flow = CompiledFlow(backend)
    flow.solve(field, a, 1.0, Midpoint(3))
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other.backend == backend
        same(other.solve(field, a, 1.0, Midpoint(3)), solve(field, a, 1.0, Midpoint(3)))
