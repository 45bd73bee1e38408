"""Flows of equal steps compiled by `torch.compile`."""

import itertools
import warnings
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from odesteer.flows import fused
from odesteer.flows.equal_steps import (
    Walk,
    advanced,
    advanced_until,
    arrived,
    at_start,
    step_size,
)
from odesteer.flows.event import ReachValue
from odesteer.flows.field import VectorField
from odesteer.flows.locating import ITERATIONS, Bracket, narrowed, whole_step
from odesteer.flows.problem import Problem
from odesteer.flows.solution import Solution
from odesteer.flows.solve import diagonal, flat, moved, restricted, solve
from odesteer.flows.solvers import FixedStep

# Steps of a graph. More make fewer calls, but time to compile grows faster than their number.
_LONGEST = 5
_CONTIGUOUS = torch.contiguous_format
_PIECES = (
    "open",
    "walk",
    "close",
    "open_until",
    "walk_until",
    "bracket",
    "narrow",
    "close_until",
)
_numbers = itertools.count()

Backend = str | Callable[..., Any]


class CompilerWarning(UserWarning):
    """A flow that was to be compiled runs uncompiled."""


class CompiledFlow:
    """`solve` for one field and solvers of equal steps, with graphs of `torch.compile`.

    Graphs are made when they are needed first and kept here: for one activation, for the number
    that comes next, and, from the third number on, for any; whatever T and the values to reach
    are. Each holds a few steps, so that many steps take no longer to compile. Where a form of
    numba does the steps, and where gradients are recorded, `solve` goes on as ever. So it does,
    with a `CompilerWarning`, where the compiler fails, as it does without a C++ compiler: results
    are the same, and a service should not stand still for want of speed.

    Parameters:
        backend: of `torch.compile`.
    """

    def __init__(self, backend: Backend = "inductor") -> None:
        self.backend = backend
        self._graphs: dict[tuple[str, torch.device, torch.dtype], _Graphs | None] = {}

    def __reduce__(self) -> tuple[type["CompiledFlow"], tuple[Backend]]:
        return CompiledFlow, (self.backend,)  # copies elsewhere make graphs of their own

    def solve(
        self,
        field: VectorField,
        a: Tensor,
        T: float | Tensor,
        solver: FixedStep,
        *,
        until: ReachValue | None = None,
    ) -> Solution:
        """As `solve`; the field is the same at every call."""
        key = repr(solver), a.device, a.dtype  # its parameters are the user's to change
        if key not in self._graphs and a.numel() > 0:
            self._graphs[key] = _Graphs.of(field, solver, a, self.backend)
        graphs = self._graphs.get(key)
        recorded = torch.is_grad_enabled() and a.requires_grad
        if graphs is None or recorded or a.numel() == 0 or torch.compiler.is_compiling():
            return solve(field, a, T, solver, until=until)
        start, duration, end = flat(field, a, T, solver, until)
        value = None if end is None else torch.as_tensor(end.value)
        try:
            with torch.no_grad():
                return graphs.solve(start, duration, value).reshape(a.shape[:-1])
        except Exception as error:
            # Compilers raise anything. A flow that is itself at fault raises here once more.
            solution = solve(field, a, T, solver, until=until)
            self._graphs[key] = None
            warnings.warn(
                f"this flow runs uncompiled, since torch.compile failed: {_said(error)}."
                " On a CPU it needs a C++ compiler (g++ or clang, or CXX=...).",
                CompilerWarning,
                stacklevel=2,
            )
            return solution


class _Graphs:
    """What `solve` does in a flat batch, in pieces that are compiled each on their own."""

    def __init__(
        self, field: VectorField, within: VectorField, solver: FixedStep, backend: Backend
    ) -> None:
        self._field, self._within, self._solver = field, within, solver
        self._block = _share(solver.n_steps)
        self._graphs = {name: _compiled(getattr(self, name), backend) for name in _PIECES}

    @classmethod
    def of(
        cls, field: VectorField, solver: FixedStep, like: Tensor, backend: Backend
    ) -> "_Graphs | None":
        """For activations like `[..., d]`; None where numba does the steps."""
        within, _, _ = restricted(field, solver, like.new_ones(1, like.shape[-1]))
        if like.device.type == "cpu" and fused.has_numba() and diagonal(within, solver):
            return None
        return cls(field, within, solver, backend)

    def solve(self, start: Tensor, duration: Tensor, value: Tensor | None) -> Solution:
        # Other strides would be other graphs, and a lone number may have any.
        start, duration = start.contiguous(), duration.clone(memory_format=_CONTIGUOUS)
        run, n_blocks = self._graphs, self._solver.n_steps // self._block
        if value is None:
            norm, a, taken = run["open"](start, duration)
            for _ in range(n_blocks):
                a, taken = run["walk"](norm, duration, a, taken)
            return Solution(run["close"](start, a, taken), taken)
        value = value.clone(memory_format=_CONTIGUOUS)
        norm, walk = run["open_until"](start, duration, value)
        for _ in range(n_blocks):
            walk = run["walk_until"](norm, duration, value, walk)
        bracket = run["bracket"](norm, duration, value, walk)
        for _ in range(ITERATIONS // _share(ITERATIONS)):
            bracket = run["narrow"](norm, duration, value, walk, bracket)
        return Solution(*run["close_until"](start, duration, walk, bracket))

    def _problem(self, state: Tensor, norm: Tensor, duration: Tensor, value: Any = None) -> Problem:
        until = None if value is None else ReachValue(value)
        return Problem(self._within, state, duration, until, norm)

    def open(self, start: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = restricted(self._field, self._solver, start)[1]
        return start.norm(dim=-1), state, torch.zeros_like(duration)

    def walk(
        self, norm: Tensor, duration: Tensor, a: Tensor, taken: Tensor
    ) -> tuple[Tensor, Tensor]:
        problem = self._problem(a, norm, duration)
        dt = step_size(problem, self._solver)
        for _ in range(self._block):
            a, taken = advanced(problem, self._solver, dt, a, taken)
        return a, taken

    def close(self, start: Tensor, a: Tensor, taken: Tensor) -> Tensor:
        lift = restricted(self._field, self._solver, start)[2]
        return moved(start, a if lift is None else lift(a), taken)

    def open_until(self, start: Tensor, duration: Tensor, value: Tensor) -> tuple[Tensor, Walk]:
        norm, state, _ = self.open(start, duration)
        return norm, at_start(self._problem(state, norm, duration, value))

    def walk_until(self, norm: Tensor, duration: Tensor, value: Tensor, walk: Walk) -> Walk:
        problem = self._problem(walk.a, norm, duration, value)
        dt = step_size(problem, self._solver)
        for _ in range(self._block):
            walk = advanced_until(problem, self._solver, dt, walk)
        return walk

    def bracket(self, norm: Tensor, duration: Tensor, value: Tensor, walk: Walk) -> Bracket:
        problem = self._problem(walk.a, norm, duration, value)
        dt = step_size(problem, self._solver)
        return whole_step(problem, self._solver, walk.a, dt, walk.slope, walk.h)

    def narrow(
        self, norm: Tensor, duration: Tensor, value: Tensor, walk: Walk, bracket: Bracket
    ) -> Bracket:
        problem = self._problem(walk.a, norm, duration, value)
        dt = step_size(problem, self._solver)
        for _ in range(_share(ITERATIONS)):
            bracket = narrowed(problem, self._solver, walk.a, dt, walk.slope, bracket)
        return bracket

    def close_until(
        self, start: Tensor, duration: Tensor, walk: Walk, bracket: Bracket
    ) -> tuple[Tensor, Tensor, Tensor]:
        dt = step_size(self._problem(walk.a, walk.h, duration), self._solver)
        end = arrived(walk, dt, bracket.best, bracket.high)
        assert end.reached is not None
        return self.close(start, end.state, end.time), end.time, end.reached


def _share(n: int) -> int:
    """How many of ``n`` steps a graph takes, so that graphs of one kind take all."""
    return max(k for k in range(1, _LONGEST + 1) if n % k == 0)


def _compiled(method: Any, backend: Backend) -> Callable[..., Any]:
    # The compiler keeps its graphs, and its guesses about sizes, by the code object and its name.
    code = method.__func__.__code__
    code = code.replace(co_name=f"{code.co_name}_{next(_numbers)}")
    function = FunctionType(code, method.__globals__, code.co_name)
    return torch.compile(MethodType(function, method.__self__), fullgraph=True, backend=backend)


def _said(error: Exception) -> str:
    """Its first paragraph, on one line."""
    paragraph, _, _ = str(error).strip().partition("\n\n")
    return f"{type(error).__name__}: {' '.join(paragraph.split())}"
