"""Any method with its result rescaled to the norm of the activation."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from odesteer.flows import Solution, TangentField
from odesteer.flows.crossing import differentiable_root
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.constant import CAA
from odesteer.methods.wrapper import Wrapper

# Multiples of the angle of the rescaled result at which a level is searched.
_ANGLE_FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_BISECTIONS = 30


class NormPreserving(Wrapper):
    """Any method, with its result rescaled to the norm of the activation.

    a' = ‖a‖ m(a)/‖m(a)‖, where m is the method inside; quantities and barrier are its own.
    Activations that it does not move are returned to the bit; one that it moves onto the origin
    has no direction, stays unchanged and counts as unusable. The time is the arc on the sphere.

    Rescaling changes h. With ``level`` the activation therefore turns, in the plane of itself and
    of the rescaled result, to the angle at which h has the value: a smaller one where rescaling
    overshot, or a larger one (up to eight times) where it fell short, unless the method inside
    ran to its own cap. ``reached`` is decided by h at the end. A level costs 39 more values of h.

    Parameters:
        method: what to wrap; after `fit`, the fitted one.
    """

    dynamics: ClassVar[str] = "that of the method inside, rescaled: a' = ‖a‖ m(a)/‖m(a)‖"
    barrier_summary: ClassVar[str] = "that of the method inside"
    solver_summary: ClassVar[str] = "that of the method inside"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "that of the method inside + O(d)"
    reference: ClassVar[str] = "this project; rescaling after any method"

    def __init__(self, method: Method = CAA()) -> None:
        self.method = method

    @property
    def field(self) -> TangentField:
        """The method's field without its part along a; AttributeError where it has none."""
        inner: Any = self.method
        field = inner.field
        self.check_fitted()
        return TangentField(field)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        inner = self.method.solve_usable(a, amount)
        norm = a.norm(dim=-1, keepdim=True)
        # Scaled by the largest entry first, so that no square overflows.
        unit = inner.state / inner.state.abs().amax(dim=-1, keepdim=True)
        unit = unit / unit.norm(dim=-1, keepdim=True)
        moved = (inner.state != a).any(dim=-1, keepdim=True)
        state, reached = torch.where(moved, norm * unit, a), inner.reached
        if amount.quantity == "level":
            excess = _Excess(self.barrier, amount.value, a)
            further = torch.ones_like(moved[..., 0]) if reached is None else reached
            turned = _turned(a, norm, unit, excess, further)
            state = torch.where(moved, turned, a)
            reached = excess(state) >= 0
        chord = (state - a).norm(dim=-1) / (2 * norm[..., 0])
        arc = 2 * norm[..., 0] * torch.asin(chord.clamp(max=1))
        return Solution(state, arc, reached=reached, rejected=inner.rejected)


class _Excess:
    """By how much h exceeds the value of a level, in the direction of steering, `[...]`."""

    def __init__(self, barrier: Any, level: float | Tensor, a: Tensor) -> None:
        self.barrier = barrier
        level = torch.as_tensor(level, dtype=a.dtype, device=a.device)
        self.sign = torch.where(level >= 0, 1.0, -1.0).to(a)
        self.goal = torch.as_tensor(barrier.threshold(level)).to(a)

    def __call__(self, a: Tensor) -> Tensor:
        value: Tensor = self.barrier.value(a)
        return self.sign * (value - self.goal)


def _turned(a: Tensor, norm: Tensor, unit: Tensor, excess: _Excess, further: Tensor) -> Tensor:
    """``a`` turned towards ``unit`` to the first angle found at which h has the value.

    Rows without such an angle end at ``unit``; only the rows ``further`` may turn beyond it.
    """
    start = a / norm
    cosine = (start * unit).sum(dim=-1, keepdim=True)
    across = unit - cosine * start
    sine = across.norm(dim=-1, keepdim=True)
    tangent = across / sine.clamp_min(torch.finfo(a.dtype).tiny)
    plane = (sine > 8 * torch.finfo(a.dtype).eps)[..., 0]

    def at(angle: Tensor) -> Tensor:
        angle = angle[..., None]
        state: Tensor = norm * (torch.cos(angle) * start + torch.sin(angle) * tangent)
        return state

    full = torch.atan2(sine, cosine)[..., 0]
    with torch.no_grad():
        low, high = torch.zeros_like(full), full
        found = excess(at(full)) >= 0
        for factor in _ANGLE_FACTORS:
            trial = (factor * full).clamp(max=torch.pi)
            past, open_ = excess(at(trial)) >= 0, further & ~found
            low, high = torch.where(open_, high, low), torch.where(open_, trial, high)
            found = found | (open_ & past)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            past = excess(at(middle)) >= 0
            low, high = torch.where(past, low, middle), torch.where(past, middle, high)
    angle = differentiable_root(lambda angle: excess(at(angle)), high)
    return torch.where((found & plane)[..., None], at(angle), norm * unit)
