"""Explicit Euler in eigen-coordinates, compiled by numba."""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from odesteer.flows.fused.diagonal import DiagonalFlow, as_float64
from odesteer.flows.problem import ReachValue, Solution
from odesteer.flows.solvers import Euler

_LOCATE_ITERATIONS = 40
_SMALLEST_STEP = 2.0**-20  # relative to the cap


def euler(
    flow: DiagonalFlow, state: Tensor, duration: Tensor, solver: Euler, until: ReachValue | None
) -> Solution:
    """See `fused_euler`; float64 inside."""
    moved = as_float64(state).clone()
    signed = as_float64(duration)
    tau = torch.full_like(signed, math.nan)
    if until is not None:
        tau[:] = torch.as_tensor(until.value, dtype=torch.float64)
    time = torch.zeros_like(signed)
    reached = torch.zeros_like(signed, dtype=torch.bool)
    curvature, slope = as_float64(flow.curvature).numpy(), as_float64(flow.slope).numpy()
    usable = np.ones(len(moved), dtype=np.bool_)
    euler_rows(
        moved.numpy(),
        curvature,
        slope,
        flow.offset,
        flow.radial,
        signed.numpy(),
        solver.n_steps,
        solver.divides_distance,
        usable,
        until is not None,
        tau.numpy(),
        time.numpy(),
        reached.numpy(),
    )
    return Solution(
        moved.to(state.dtype), time.to(duration.dtype), None if until is None else reached
    )


# Sums may be reordered for speed; NaN and infinity keep their meaning.
@numba.njit(  # type: ignore[untyped-decorator]
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)
def euler_rows(
    state: Any,
    curvature: Any,
    slope: Any,
    offset: float,
    radial: bool,
    duration: Any,
    n_steps: int,
    divides_distance: bool,
    usable: Any,
    stops: bool,
    tau: Any,
    time: Any,
    reached: Any,
) -> None:
    """Move the ``usable`` rows `[n]` of ``state`` `[n, k]`; a step is one pass over coordinates.

    h and the unit gradient v need only the sums of y², λy², my, λ²y², λmy and m². v is
    (qᵢ - pyᵢ)/‖q - py‖ with q = λy/n + m, and p = x·q/n for radial inputs, else 0.
    """
    k = state.shape[1]
    slope2 = 0.0
    for i in range(k):
        slope2 += slope[i] * slope[i]
    for row in range(state.shape[0]):
        if not usable[row]:
            continue
        y = state[row]
        dt = duration[row] / n_steps
        cap = abs(duration[row])
        sign = -1.0 if duration[row] < 0 else 1.0
        plans = stops and divides_distance
        most_steps = 2 * n_steps if plans else n_steps
        y2, ly2, my, l2y2, lmy = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(k):
            ly = curvature[i] * y[i]
            y2 += y[i] * y[i]
            ly2 += ly * y[i]
            my += slope[i] * y[i]
            l2y2 += ly * ly
            lmy += ly * slope[i]
        n = math.sqrt(y2) if radial else 1.0
        h = ly2 / (n * n) + 2.0 * my / n + offset
        if stops and sign * (h - tau[row]) >= 0.0:
            reached[row] = True
            continue
        for index in range(most_steps):
            p = (ly2 / (n * n) + my / n) / n if radial else 0.0
            # ‖q - py‖² from the same sums
            length2 = l2y2 / (n * n) + 2.0 * lmy / n + slope2
            if radial:
                length2 -= (p * n) * (p * n)
            if not length2 > 0.0:
                break
            length = math.sqrt(length2)
            if plans:  # see `FixedStep`
                left, steps_left = cap - time[row], n_steps - index
                if not left > _SMALLEST_STEP * cap:
                    break
                distance = min(sign * (tau[row] - h) * n / (2.0 * length), left)
                if steps_left > 1:
                    size = distance / steps_left
                elif steps_left == 1:
                    size = min(2.0 * distance, left)
                else:
                    size = left / (most_steps - index)
                dt = sign * min(size, cap / n_steps)
            step = dt / length
            grow, bend = 1.0 - step * p, step / n
            if not stops:
                y2, ly2, my, l2y2, lmy = 0.0, 0.0, 0.0, 0.0, 0.0
                for i in range(k):
                    value = (grow + bend * curvature[i]) * y[i] + step * slope[i]
                    y[i] = value
                    ly = curvature[i] * value
                    y2 += value * value
                    ly2 += ly * value
                    my += slope[i] * value
                    l2y2 += ly * ly
                    lmy += ly * slope[i]
                n = math.sqrt(y2) if radial else 1.0
                time[row] += abs(dt)
                continue
            # The moved state is y + w with w = (grow - 1 + bend·λ)y + step·m; sums with w give h
            # anywhere on the segment without another pass.
            yw, w2, lyw, lw2, mw = 0.0, 0.0, 0.0, 0.0, 0.0
            l2y2_next, lmy_next = 0.0, 0.0
            for i in range(k):
                w = (grow - 1.0 + bend * curvature[i]) * y[i] + step * slope[i]
                lw = curvature[i] * w
                yw += y[i] * w
                w2 += w * w
                lyw += lw * y[i]
                lw2 += lw * w
                mw += slope[i] * w
                ly = curvature[i] * y[i] + lw
                l2y2_next += ly * ly
                lmy_next += ly * slope[i]
            fraction = 1.0
            next_y2 = y2 + 2.0 * yw + w2
            m = math.sqrt(next_y2) if radial else 1.0
            next_h = (ly2 + 2.0 * lyw + lw2) / (m * m) + 2.0 * (my + mw) / m + offset
            crossed = sign * (next_h - tau[row]) >= 0.0
            if crossed:
                low, high = 0.0, 1.0
                for _ in range(_LOCATE_ITERATIONS):
                    middle = 0.5 * (low + high)
                    m = math.sqrt(y2 + 2.0 * middle * yw + middle**2 * w2) if radial else 1.0
                    value = (ly2 + 2.0 * middle * lyw + middle**2 * lw2) / (m * m)
                    value += 2.0 * (my + middle * mw) / m + offset
                    if sign * (value - tau[row]) >= 0.0:
                        high = middle
                    else:
                        low = middle
                fraction = high
            for i in range(k):
                y[i] += fraction * ((grow - 1.0 + bend * curvature[i]) * y[i] + step * slope[i])
            time[row] += fraction * abs(dt)
            if crossed:
                reached[row] = True
                break
            ly2, my, h = ly2 + 2.0 * lyw + lw2, my + mw, next_h
            y2, l2y2, lmy = next_y2, l2y2_next, lmy_next
            n = math.sqrt(y2) if radial else 1.0
