"""Explicit Euler in eigen-coordinates on a GPU: all steps in one launch, one program a token.

Steering n activations is two products with the basis Q around two kernels: `_flow`, which takes
all steps and finds where the value is reached, and `_lift`, which writes the moved activations
where they lie. Nothing waits for the device and nothing depends on values, so CUDA graphs may
record it. float32 inside, whatever the type of the activations.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from odesteer.flows.fused.base import FlowInPlace
from odesteer.flows.fused.diagonal import DiagonalFlow
from odesteer.flows.solvers import Euler

_BISECTIONS = 24  # as many as a float32 has bits


@triton.jit  # type: ignore[untyped-decorator]
def _height(y2, ly2, my, offset, radial: tl.constexpr):  # type: ignore[no-untyped-def]
    """h from the sums of y², λy² and my."""
    if radial:
        return ly2 / y2 + 2.0 * my / tl.sqrt(y2) + offset
    return ly2 + 2.0 * my + offset


@triton.jit  # type: ignore[untyped-decorator]
def _flow(  # type: ignore[no-untyped-def]
    states,
    rows,
    stride,
    projected,
    curvature,
    slope,
    offset,
    duration,
    tau,
    change,
    scale,
    time,
    reached,
    usable,
    width,
    rank,
    n_steps,
    most_steps,
    radial: tl.constexpr,
    stops: tl.constexpr,
    divides_distance: tl.constexpr,
    bisections: tl.constexpr,
    block_width: tl.constexpr,
    block_rank: tl.constexpr,
):
    """Token number ``program_id``: from z = Qᵀa to the change of z, the scale and the time.

    ``projected`` and ``change`` are `[n, r]`; ``scale``, ``time``, ``duration`` and ``tau`` `[n]`.
    h and the unit gradient need only the sums of y², λy², my, λ²y², λmy and m², as in `cpu`.
    """
    token = tl.program_id(0)
    first = states + tl.load(rows + token) * stride
    squares = tl.zeros((block_width,), tl.float32)
    for start in range(0, width, block_width):
        column = start + tl.arange(0, block_width)
        a = tl.load(first + column, mask=column < width, other=0.0).to(tl.float32)
        squares += a * a
    squared = tl.sum(squares)
    # As `Method.solve`: squares that leave the range of float32 are as good as zero or infinite.
    good = (squared > 9.8607613e-32) & (squared <= 3.4028234e38)
    squared = tl.where(good, squared, 1.0)
    index = tl.arange(0, block_rank)
    inside = index < rank
    z = tl.load(projected + token * rank + index, mask=inside, other=0.0)
    z = tl.where(good, z, 0.0)
    lam = tl.load(curvature + index, mask=inside, other=0.0)
    m = tl.load(slope + index, mask=inside, other=0.0)
    y = z
    # What lies outside the basis is one more coordinate, on which h does not depend but by ‖a‖.
    start_rho = tl.sqrt(tl.maximum(squared - tl.sum(z * z), squared * 1.1920929e-07))
    rho = start_rho
    total = tl.load(duration + token)
    sign = tl.where(total < 0.0, -1.0, 1.0)
    goal = tl.load(tau + token)
    dt = total / n_steps
    slope2 = tl.sum(m * m)
    taken = 0.0
    moving = good
    there = 0.0
    y2 = tl.sum(y * y) + rho * rho
    ly2 = tl.sum(lam * y * y)
    my = tl.sum(m * y)
    h = _height(y2, ly2, my, offset, radial)
    cap = tl.abs(total)
    steps_left = n_steps * 1.0
    if stops:
        before = sign * (h - goal) < 0.0
        there = tl.where(moving & (before == 0), 1.0, 0.0)
        moving = moving & before
    for _ in range(most_steps):
        n = 1.0
        if radial:
            n = tl.sqrt(y2)
        ly = lam * y
        length2 = tl.sum(ly * ly) / (n * n) + 2.0 * tl.sum(ly * m) / n + slope2
        p = 0.0
        if radial:
            p = (ly2 / (n * n) + my / n) / n
            length2 -= (p * n) * (p * n)
        moving = moving & (length2 > 0.0)
        length = tl.sqrt(tl.where(length2 > 0.0, length2, 1.0))
        if divides_distance:  # see `FixedStep`
            left = tl.maximum(cap - taken, 0.0)
            moving = moving & (left > cap * 9.5367432e-07)
            distance = tl.minimum(sign * (goal - h) * n / (2.0 * length), left)
            planned = distance / tl.maximum(steps_left, 1.0)
            planned = tl.where(steps_left == 1.0, tl.minimum(2.0 * distance, left), planned)
            further = left / tl.maximum(steps_left + n_steps, 1.0)
            size = tl.where(steps_left > 0.0, planned, further)
            dt = sign * tl.minimum(size, cap / n_steps)
            steps_left -= 1.0
        step = tl.where(moving, dt / length, 0.0)
        w = step * (ly / n + m - p * y)
        w_rho = -step * p * rho
        yw = tl.sum(y * w) + rho * w_rho
        w2 = tl.sum(w * w) + w_rho * w_rho
        lyw = tl.sum(ly * w)
        lw2 = tl.sum(lam * w * w)
        mw = tl.sum(m * w)
        fraction = 1.0
        if stops:
            end = _height(y2 + 2.0 * yw + w2, ly2 + 2.0 * lyw + lw2, my + mw, offset, radial)
            crossed = moving & (sign * (end - goal) >= 0.0)
            low = 0.0
            high = 1.0
            for _ in range(bisections):
                middle = 0.5 * (low + high)
                h = _height(
                    y2 + 2.0 * middle * yw + middle * middle * w2,
                    ly2 + 2.0 * middle * lyw + middle * middle * lw2,
                    my + middle * mw,
                    offset,
                    radial,
                )
                past = sign * (h - goal) >= 0.0
                high = tl.where(past, middle, high)
                low = tl.where(past, low, middle)
            fraction = tl.where(crossed, high, 1.0)
        y += fraction * w
        rho += fraction * w_rho
        taken += tl.where(moving, fraction * tl.abs(dt), 0.0)
        if stops:
            there = tl.where(crossed, 1.0, there)
            moving = moving & (crossed == 0)
        y2 = tl.sum(y * y) + rho * rho
        ly2 = tl.sum(lam * y * y)
        my = tl.sum(m * y)
        h = _height(y2, ly2, my, offset, radial)
    grown = 1.0
    if radial:
        grown = rho / start_rho
    tl.store(change + token * rank + index, y - grown * z, mask=inside)
    tl.store(scale + token, grown)
    tl.store(time + token, taken)
    tl.store(reached + token, there)
    tl.store(usable + token, tl.where(good, 1.0, 0.0))


@triton.jit  # type: ignore[untyped-decorator]
def _lift(  # type: ignore[no-untyped-def]
    states,
    rows,
    stride,
    lifted,
    scale,
    time,
    reached,
    usable,
    width,
    block_width: tl.constexpr,
):
    """a ← scale·a + Qc where time has passed and the result is finite in the type of ``states``."""
    token = tl.program_id(0)
    first = states + tl.load(rows + token) * stride
    grown = tl.load(scale + token)
    column = tl.arange(0, block_width)
    inside = column < width
    a = tl.load(first + column, mask=inside, other=0.0)
    more = tl.load(lifted + token * width + column, mask=inside, other=0.0)
    moved = (grown * a.to(tl.float32) + more).to(a.dtype)
    # Zero times infinity, and NaN, are not zero.
    if tl.load(time + token) > 0.0:
        if tl.sum(moved.to(tl.float32) * 0.0) == 0.0:
            tl.store(first + column, moved, mask=inside)
        else:
            tl.store(time + token, 0.0)
            tl.store(reached + token, 0.0)
            tl.store(usable + token, 0.0)


class InPlaceOnGPU(FlowInPlace):
    """Activations of any floating-point type up to 32 bits on a GPU."""

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
        device, (width, rank) = basis.device, basis.shape
        self._basis = basis.detach().contiguous()
        n = len(duration)

        def own(values: Tensor) -> Tensor:
            return values.to(device, torch.float32).contiguous()

        # The further coordinate of radial flows has neither curvature nor slope.
        self._tables = [
            own(flow.curvature[:rank]),
            own(flow.slope[:rank]),
            float(flow.offset),
            own(duration),
            own(duration if value is None else value),
        ]
        self._rows = torch.arange(n, device=device) if rows is None else rows.to(device)
        self._all = rows is None
        self._width, self._rank, self._radial = width, rank, flow.radial
        self._stops = value is not None
        self._n_steps = solver.n_steps
        self._divides_distance = self._stops and solver.divides_distance
        # Kept between calls, where nothing else is in flight: one stream moves one token at a time.
        self._change = self._basis.new_empty(n, rank)
        self._lifted = self._basis.new_empty(n, width)
        self._projected = self._basis.new_empty(n, rank)
        self._scale = self._basis.new_empty(n)
        self._account = self._basis.new_empty(3, n).unbind()  # time, reached, usable

    def over(self, rows: Tensor | None) -> FlowInPlace:
        return InPlaceOnGPU(*self._arguments, rows)

    def move(self, states: Tensor) -> bool:
        if (
            type(states) is not Tensor
            or states.dtype not in (torch.float32, torch.bfloat16, torch.float16)
            or states.device != self._basis.device
            or not states.is_contiguous()
        ):
            return False
        width, rank, n_steps = self._width, self._rank, self._n_steps
        flat = states.view(-1, width)
        own = flat if self._all else flat[self._rows]
        torch.mm(own.float(), self._basis, out=self._projected)
        n = len(self._rows)
        _flow[(n,)](
            states,
            self._rows,
            width,
            self._projected,
            *self._tables,
            self._change,
            self._scale,
            *self._account,
            width,
            rank,
            n_steps,
            2 * n_steps if self._divides_distance else n_steps,
            radial=self._radial,
            stops=self._stops,
            divides_distance=self._divides_distance,
            bisections=_BISECTIONS,
            block_width=min(1024, triton.next_power_of_2(width)),
            block_rank=triton.next_power_of_2(rank),
        )
        torch.mm(self._change, self._basis.T, out=self._lifted)
        _lift[(n,)](
            states,
            self._rows,
            width,
            self._lifted,
            self._scale,
            *self._account,
            width,
            block_width=triton.next_power_of_2(width),
        )
        return True

    def account(self) -> tuple[Tensor, Tensor | None, Tensor]:
        time, reached, usable = self._account
        return time.clone(), reached > 0 if self._stops else None, usable > 0
