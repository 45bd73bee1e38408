"""Flows in place on the CPU (numba): basis products, all steps and the lift in one call."""

import math
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import intrinsic
from torch import Tensor

from odesteer.flows.fused.base import FlowInPlace
from odesteer.flows.fused.cpu import euler_rows
from odesteer.flows.fused.diagonal import DiagonalFlow, as_float64
from odesteer.flows.solvers import Euler

# Multiplications in a product with the basis, above which torch's product is faster than the
# compiled loop.
LARGE = 1_000_000
_LARGEST_SQUARE = float(np.finfo(np.float32).max)
_SMALLEST_SQUARE = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
_EPS = float(np.finfo(np.float32).eps)


class InPlaceOnCPU(FlowInPlace):
    """Explicit Euler for float32 activations: what `odesteer.flows.solve` does, without a tensor
    in between.

    ``basis`` Q is `[d, r]` float32; ``duration`` and ``value`` `[n]`; ``rows`` `[n]` the numbers
    of the activations in their batch (None: all, in order). Activations that are zero, not
    finite, moved for no time or to what is not finite stay as they are, to the bit.
    """

    def __init__(
        self,
        basis: Tensor,
        flow: DiagonalFlow,
        solver: Euler,
        duration: Tensor,
        value: Tensor | None,
        rows: Tensor | None = None,
    ) -> None:
        self._arguments = basis, flow, solver, duration, value
        self._basis = basis.detach()
        self._rows = rows
        numbers = torch.arange(len(duration)) if rows is None else rows
        tables = [
            self._basis.numpy(),
            *(
                as_float64(table).numpy()
                for table in (
                    flow.curvature,
                    flow.slope,
                    duration,
                    duration if value is None else value,
                )
            ),
            numbers.numpy(),
        ]
        self._tables = [np.ascontiguousarray(table) for table in tables]
        self._offset = np.array([flow.offset])
        (d, r), n, k = basis.shape, len(numbers), len(flow.curvature)
        self._width = d
        coordinates = np.zeros((n, r), np.float32)  # Qᵀa, then what to lift
        lifted = np.zeros((n, d), np.float32)  # Q times those
        self._scale = np.zeros(n, np.float32)
        self._states = np.zeros((n, k))
        self._time = np.zeros(n)
        self._reached = np.zeros(n, np.bool_)
        self._usable = np.zeros(n, np.bool_)
        self._coordinates = torch.from_numpy(coordinates)
        self._lifted = torch.from_numpy(lifted)
        numbers_of_call = [
            *(n, d, r, k),
            *(int(flow.radial), solver.n_steps, int(solver.divides_distance)),
            int(value is not None),
        ]
        arrays = (
            *self._tables,
            self._offset,
            coordinates,
            lifted,
            self._scale,
            self._states,
            self._time,
            self._reached,
            self._usable,
        )
        addresses = [array.ctypes.data for array in arrays]
        # All that a call needs behind one address: passing arguments costs more than a step.
        self._plan = np.array([*numbers_of_call, *addresses], np.int64)
        self._address = int(self._plan.ctypes.data)
        self._is_large = n * r * d > LARGE

    def over(self, rows: Tensor | None) -> FlowInPlace:
        return InPlaceOnCPU(*self._arguments, rows)

    def move(self, states: Tensor) -> bool:
        if (
            type(states) is not Tensor
            or states.dtype is not torch.float32
            or not states.is_cpu
            or not states.is_contiguous()
        ):
            return False
        if self._is_large:
            self._move_with_matmul(states)
        else:
            _call_move(states.data_ptr(), self._width, self._address)
        return True

    def _move_with_matmul(self, states: Tensor) -> None:
        """As the compiled move, with both products by torch."""
        address, rows = states.data_ptr(), self._rows
        flat = states.view(-1, self._width)
        torch.mm(flat if rows is None else flat[rows], self._basis, out=self._coordinates)
        _call_flow(address, self._width, self._address)
        torch.mm(self._coordinates, self._basis.T, out=self._lifted)
        _call_write(address, self._width, self._address)

    def account(self) -> tuple[Tensor, Tensor | None, Tensor]:
        stops = self._arguments[-1] is not None
        reached = torch.from_numpy(self._reached.copy()) if stops else None
        time = torch.from_numpy(self._time).float()
        return time, reached, torch.from_numpy(self._usable.copy())


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(context: Any, address: Any) -> Any:
    """The address as a pointer."""
    from numba.core import cgutils, types

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


_compiled = numba.njit(
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)


@_compiled  # type: ignore[untyped-decorator]
def _project(memory: Any, stride: int, rows: Any, basis: Any, z: Any) -> None:
    """z = Qᵀa. Four activations at a time share what is read of the basis."""
    n, (d, r) = len(rows), basis.shape
    z[:] = np.float32(0.0)
    for i in range(0, n - n % 4, 4):
        at0, at1, at2, at3 = (
            rows[i] * stride,
            rows[i + 1] * stride,
            rows[i + 2] * stride,
            rows[i + 3] * stride,
        )
        z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
        for j in range(d):
            x0, x1, x2, x3 = memory[at0 + j], memory[at1 + j], memory[at2 + j], memory[at3 + j]
            line = basis[j]
            for m in range(r):
                z0[m] += x0 * line[m]
                z1[m] += x1 * line[m]
                z2[m] += x2 * line[m]
                z3[m] += x3 * line[m]
    for i in range(n - n % 4, n):
        first = rows[i] * stride
        own = z[i]
        for j in range(d):
            x = memory[first + j]
            line = basis[j]
            for m in range(r):
                own[m] += x * line[m]


@_compiled  # type: ignore[untyped-decorator]
def _lift(basis: Any, z: Any, lifted: Any) -> None:
    """Q z, four at a time too."""
    n, (d, r) = len(z), basis.shape
    for i in range(0, n - n % 4, 4):
        z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
        for j in range(d):
            line = basis[j]
            t0 = t1 = t2 = t3 = np.float32(0.0)
            for m in range(r):
                t0 += z0[m] * line[m]
                t1 += z1[m] * line[m]
                t2 += z2[m] * line[m]
                t3 += z3[m] * line[m]
            lifted[i, j], lifted[i + 1, j], lifted[i + 2, j], lifted[i + 3, j] = t0, t1, t2, t3
    for i in range(n - n % 4, n):
        own = z[i]
        for j in range(d):
            line = basis[j]
            total = np.float32(0.0)
            for m in range(r):
                total += own[m] * line[m]
            lifted[i, j] = total


@_compiled  # type: ignore[untyped-decorator]
def _arrays(address: int, stride: int, plan: int) -> Any:
    """The arrays behind the addresses of ``plan``, see `InPlaceOnCPU`."""
    at = numba.carray(_pointer(plan), (22,), np.int64)
    n, d, r = at[0], at[1], at[2]
    rows = numba.carray(_pointer(at[13]), (n,), np.int64)
    return (
        numba.carray(_pointer(address), (rows[n - 1] * stride + d,), np.float32),
        rows,
        numba.carray(_pointer(at[8]), (d, r), np.float32),
        numba.carray(_pointer(at[15]), (n, r), np.float32),
        numba.carray(_pointer(at[16]), (n, d), np.float32),
        numba.carray(_pointer(at[17]), (n,), np.float32),
        numba.carray(_pointer(at[19]), (n,), np.float64),
        numba.carray(_pointer(at[20]), (n,), np.bool_),
        numba.carray(_pointer(at[21]), (n,), np.bool_),
    )


@_compiled  # type: ignore[untyped-decorator]
def _flow(address: int, stride: int, plan: int) -> None:
    """All steps from z = Qᵀa; z becomes c in the moved a = ``scale``·a + Qc."""
    memory, rows, _, z, _, scale, time, reached, usable = _arrays(address, stride, plan)
    at = numba.carray(_pointer(plan), (22,), np.int64)
    n, width, r, k = at[0], at[1], at[2], at[3]
    radial, n_steps, divides_distance, stops = at[4] == 1, at[5], at[6] == 1, at[7] == 1
    curvature = numba.carray(_pointer(at[9]), (k,), np.float64)
    slope = numba.carray(_pointer(at[10]), (k,), np.float64)
    duration = numba.carray(_pointer(at[11]), (n,), np.float64)
    tau = numba.carray(_pointer(at[12]), (n,), np.float64)
    offset = numba.carray(_pointer(at[14]), (1,), np.float64)[0]
    y = numba.carray(_pointer(at[18]), (n, k), np.float64)
    start = np.ones(n)
    for i in range(n):
        first = rows[i] * stride
        squared = np.float32(0.0)
        for j in range(width):
            squared += memory[first + j] * memory[first + j]
        time[i], reached[i], scale[i] = 0.0, False, 1.0
        usable[i] = _SMALLEST_SQUARE < squared <= _LARGEST_SQUARE
        if not usable[i]:
            y[i] = 1.0
            continue
        inside = 0.0
        for m in range(r):
            y[i, m] = z[i, m]
            inside += y[i, m] * y[i, m]
        if radial:
            y[i, r] = math.sqrt(max(squared - inside, squared * _EPS))
            start[i] = y[i, r]
    euler_rows(
        y,
        curvature,
        slope,
        offset,
        radial,
        duration,
        n_steps,
        divides_distance,
        usable,
        stops,
        tau,
        time,
        reached,
    )
    for i in range(n):
        if not time[i] > 0.0:
            z[i] = np.float32(0.0)
            continue
        if radial:
            scale[i] = y[i, r] / start[i]
        for m in range(r):
            z[i, m] = y[i, m] - scale[i] * z[i, m]


@_compiled  # type: ignore[untyped-decorator]
def _write(address: int, stride: int, plan: int) -> None:
    """Write a = ``scale``·a + ``lifted`` where that is finite."""
    memory, rows, _, _, lifted, scale, time, reached, usable = _arrays(address, stride, plan)
    n, d = lifted.shape
    for i in range(n):
        if not time[i] > 0.0:
            continue
        first = rows[i] * stride
        most = np.float32(0.0)
        for j in range(d):
            lifted[i, j] += scale[i] * memory[first + j]
            most += lifted[i, j] * np.float32(0.0)
        if most == 0.0:  # NaN where one of them is not finite
            memory[first : first + d] = lifted[i]
        else:
            time[i], reached[i], usable[i] = 0.0, False, False


_SIGNATURE = "void(int64, int64, int64)"  # address of the first activation, stride, plan


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _move_entry(address: int, stride: int, plan: int) -> None:
    memory, rows, basis, z, lifted, _, _, _, _ = _arrays(address, stride, plan)
    _project(memory, stride, rows, basis, z)
    _flow(address, stride, plan)
    _lift(basis, z, lifted)
    _write(address, stride, plan)


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _flow_entry(address: int, stride: int, plan: int) -> None:
    _flow(address, stride, plan)


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _write_entry(address: int, stride: int, plan: int) -> None:
    _write(address, stride, plan)


_call_move, _call_flow, _call_write = _move_entry.ctypes, _flow_entry.ctypes, _write_entry.ctypes
