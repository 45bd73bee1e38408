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

    Attributes:
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
        n = len(rows)
        self.time = np.zeros(n)
        self.reached = np.zeros(n, np.bool_)
        self.usable = np.zeros(n, np.bool_)
        numbers = [n, d, r, len(curvature), int(radial), n_steps, int(tau is not None)]
        arrays = (*self._tables, self._offset, self.time, self.reached, self.usable)
        addresses = [array.ctypes.data for array in arrays]
        # All that a call needs behind one address: passing arguments costs more than a step.
        self._plan = np.array([*numbers, *addresses], np.int64)
        self._address = int(self._plan.ctypes.data)

    def move(self, address: int, stride: int) -> None:
        """Move activations that begin at ``address`` and lie ``stride`` numbers apart."""
        _call(address, stride, self._address)


@_compiled  # type: ignore[untyped-decorator]
def _move(
    address: int,
    stride: int,
    rows: Any,
    basis: Any,
    curvature: Any,
    slope: Any,
    offset: float,
    radial: bool,
    duration: Any,
    n_steps: int,
    stops: bool,
    tau: Any,
    time: Any,
    reached: Any,
    usable: Any,
) -> None:
    n, (d, r) = len(rows), basis.shape
    k = len(curvature)
    memory = numba.carray(_pointer(address), ((rows[n - 1] * stride + d),), np.float32)
    z = np.zeros((n, r), np.float32)
    squared = np.zeros(n)
    # Four activations at a time share what is read of the basis.
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
    for i in range(n):
        first = rows[i] * stride
        total = np.float32(0.0)
        for j in range(d):
            total += memory[first + j] * memory[first + j]
        squared[i] = total
    y = np.ones((n, k))
    taken = np.zeros(n, np.int64)
    for i in range(n):
        time[i], reached[i] = 0.0, False
        usable[i] = _LEAST < squared[i] <= _MOST
        if not usable[i]:
            taken[i] = n_steps
            continue
        inside = 0.0
        for m in range(r):
            y[i, m] = z[i, m]
            inside += y[i, m] * y[i, m]
        if radial:
            y[i, r] = math.sqrt(max(squared[i] - inside, squared[i] * _EPS))
    start = y[:, k - 1].copy()
    euler_rows(
        y, curvature, slope, offset, radial, duration, n_steps, taken, stops, tau, time, reached
    )
    scale = np.ones(n, np.float32)
    for i in range(n):
        if radial:
            scale[i] = y[i, r] / start[i]
        for m in range(r):
            z[i, m] = y[i, m] - scale[i] * z[i, m]
    moved = np.empty((n, d), np.float32)
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
            moved[i, j], moved[i + 1, j], moved[i + 2, j], moved[i + 3, j] = t0, t1, t2, t3
    for i in range(n - n % 4, n):
        own = z[i]
        for j in range(d):
            line = basis[j]
            total = np.float32(0.0)
            for m in range(r):
                total += own[m] * line[m]
            moved[i, j] = total
    for i in range(n):
        if not time[i] > 0.0:
            continue
        first = rows[i] * stride
        most = np.float32(0.0)
        for j in range(d):
            moved[i, j] += scale[i] * memory[first + j]
            most += moved[i, j] * np.float32(0.0)
        if most == 0.0:  # NaN where one of them is not finite
            memory[first : first + d] = moved[i]
        else:
            time[i], reached[i], usable[i] = 0.0, False, False


@numba.cfunc("void(int64, int64, int64)", cache=True)  # type: ignore[untyped-decorator]
def _entry(address: int, stride: int, plan: int) -> None:
    at = numba.carray(_pointer(plan), (17,), np.int64)
    n, d, r, k = at[0], at[1], at[2], at[3]
    _move(
        address,
        stride,
        numba.carray(_pointer(at[12]), (n,), np.int64),
        numba.carray(_pointer(at[7]), (d, r), np.float32),
        numba.carray(_pointer(at[8]), (k,), np.float64),
        numba.carray(_pointer(at[9]), (k,), np.float64),
        numba.carray(_pointer(at[13]), (1,), np.float64)[0],
        at[4] == 1,
        numba.carray(_pointer(at[10]), (n,), np.float64),
        at[5],
        at[6] == 1,
        numba.carray(_pointer(at[11]), (n,), np.float64),
        numba.carray(_pointer(at[14]), (n,), np.float64),
        numba.carray(_pointer(at[15]), (n,), np.bool_),
        numba.carray(_pointer(at[16]), (n,), np.bool_),
    )


_call = _entry.ctypes
