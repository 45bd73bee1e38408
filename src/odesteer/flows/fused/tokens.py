"""A few activations moved where they lie, each by one compiled call: products, steps, way back.

What `odesteer.flows.solve` does for float32 activations on the CPU, without a tensor in between.
"""

import math
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from odesteer.flows.fused.cpu import euler_rows

_MOST = float(np.finfo(np.float32).max)
_LEAST = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
_EPS = float(np.finfo(np.float32).eps)


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


class TokenFlow:
    """Explicit Euler for ``n`` float32 activations on the CPU, prepared for many calls.

    ``basis`` Q is `[d, r]` float32; ``curvature`` and ``slope`` `[k]`, k = r, or r + 1 where
    ``radial``; ``duration`` and ``tau`` `[n]`, all float64; ``rows`` `[n]` the numbers of the
    activations, int64. Activations that are zero, not finite, moved for no time or to what is not
    finite stay as they are, to the bit.

    `move` does all in one call. The products with Q, where somebody else is to take them, go
    before and after `step`, and `land` ends the move.

    Attributes:
        coordinates: `[n, r]` float32, given to `step` as Qᵀa, and left by it as what to lift.
        lifted: `[n, d]` float32, given to `land` as Q times those.
        time, reached, usable: of the last call, each `[n]`, as in `Solution`.
    """

    def __init__(
        self,
        basis: Any,
        curvature: Any,
        slope: Any,
        offset: float,
        radial: bool,
        duration: Any,
        n_steps: int,
        tau: Any | None,
        rows: Any,
    ) -> None:
        tables = [basis, curvature, slope, duration, duration if tau is None else tau, rows]
        self._tables = [np.ascontiguousarray(table) for table in tables]
        self._offset = np.array([offset])
        d, r = basis.shape
        n, k = len(rows), len(curvature)
        self.coordinates = np.zeros((n, r), np.float32)
        self.lifted = np.zeros((n, d), np.float32)
        self._scale = np.zeros(n, np.float32)
        self._states = np.zeros((n, k))
        self.time = np.zeros(n)
        self.reached = np.zeros(n, np.bool_)
        self.usable = np.zeros(n, np.bool_)
        numbers = [n, d, r, k, int(radial), n_steps, int(tau is not None)]
        arrays = (
            *self._tables,
            self._offset,
            self.coordinates,
            self.lifted,
            self._scale,
            self._states,
            self.time,
            self.reached,
            self.usable,
        )
        addresses = [array.ctypes.data for array in arrays]
        # All that a call needs behind one address: passing arguments costs more than a step.
        self._plan = np.array([*numbers, *addresses], np.int64)
        self._address = int(self._plan.ctypes.data)

    def move(self, address: int, stride: int) -> None:
        """Move activations that begin at ``address`` and lie ``stride`` numbers apart."""
        _call_move(address, stride, self._address)

    def step(self, address: int, stride: int) -> None:
        """All steps, from and to ``coordinates``."""
        _call_step(address, stride, self._address)

    def land(self, address: int, stride: int) -> None:
        """Write where the activations have come to, from ``lifted``."""
        _call_land(address, stride, self._address)


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
    """What every part of a move works on: see `TokenFlow`."""
    at = numba.carray(_pointer(plan), (21,), np.int64)
    n, d, r = at[0], at[1], at[2]
    rows = numba.carray(_pointer(at[12]), (n,), np.int64)
    return (
        numba.carray(_pointer(address), (rows[n - 1] * stride + d,), np.float32),
        rows,
        numba.carray(_pointer(at[7]), (d, r), np.float32),
        numba.carray(_pointer(at[14]), (n, r), np.float32),
        numba.carray(_pointer(at[15]), (n, d), np.float32),
        numba.carray(_pointer(at[16]), (n,), np.float32),
        numba.carray(_pointer(at[18]), (n,), np.float64),
        numba.carray(_pointer(at[19]), (n,), np.bool_),
        numba.carray(_pointer(at[20]), (n,), np.bool_),
    )


@_compiled  # type: ignore[untyped-decorator]
def _flow(address: int, stride: int, plan: int) -> None:
    """Steps from z = Qᵀa, which becomes what times Q is added to ``scale`` times a."""
    memory, rows, _, z, _, scale, time, reached, usable = _arrays(address, stride, plan)
    at = numba.carray(_pointer(plan), (21,), np.int64)
    n, width, r, k = at[0], at[1], at[2], at[3]
    radial, n_steps, stops = at[4] == 1, at[5], at[6] == 1
    curvature = numba.carray(_pointer(at[8]), (k,), np.float64)
    slope = numba.carray(_pointer(at[9]), (k,), np.float64)
    duration = numba.carray(_pointer(at[10]), (n,), np.float64)
    tau = numba.carray(_pointer(at[11]), (n,), np.float64)
    offset = numba.carray(_pointer(at[13]), (1,), np.float64)[0]
    y = numba.carray(_pointer(at[17]), (n, k), np.float64)
    taken = np.zeros(n, np.int64)
    start = np.ones(n)
    for i in range(n):
        first = rows[i] * stride
        squared = np.float32(0.0)
        for j in range(width):
            squared += memory[first + j] * memory[first + j]
        time[i], reached[i], scale[i] = 0.0, False, 1.0
        usable[i] = _LEAST < squared <= _MOST
        if not usable[i]:
            taken[i] = n_steps
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
        y, curvature, slope, offset, radial, duration, n_steps, taken, stops, tau, time, reached
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
def _land(address: int, stride: int, plan: int) -> None:
    """a = ``scale`` times a + ``lifted``, where that is finite."""
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


_SIGNATURE = "void(int64, int64, int64)"


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _move(address: int, stride: int, plan: int) -> None:
    memory, rows, basis, z, lifted, _, _, _, _ = _arrays(address, stride, plan)
    _project(memory, stride, rows, basis, z)
    _flow(address, stride, plan)
    _lift(basis, z, lifted)
    _land(address, stride, plan)


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _step(address: int, stride: int, plan: int) -> None:
    _flow(address, stride, plan)


@numba.cfunc(_SIGNATURE, cache=True)  # type: ignore[untyped-decorator]
def _end(address: int, stride: int, plan: int) -> None:
    _land(address, stride, plan)


_call_move, _call_step, _call_land = _move.ctypes, _step.ctypes, _end.ctypes
