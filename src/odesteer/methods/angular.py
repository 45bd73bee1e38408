"""Angular steering: rotation in a fixed plane (Vu and Nguyen, NeurIPS 2025, arXiv 2510.26243)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast, FitArguments, Fitting, MeanDifferenceBarrier, check_contrast
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method

Turn = Literal["to", "by"]
Plane = Literal["own", "shared"]


class Angular(Method):
    """Rotates an activation to a given angle in a fixed plane; keeps its norm exactly.

    The plane is spanned by b₁, the unit vector along μ₊ - μ₋, and b₂, the first principal
    component of the activations within their classes and orthogonal to b₁; its sign is that of
    the mean activation, so that this lies at an angle of 0 to 180 degrees. Only the part of an
    activation in the plane turns, along the shorter way: at the angle 0 all of it points to the
    positives, at 90 none of it is left along b₁, at 180 it points to the negatives.

    ``interpolation`` is the fraction of the turn from an activation's own angle to the target;
    above 1 it turns past the target, and a negative one turns by that fraction towards the
    opposite of the target. ``level`` turns each activation until the barrier has the value, in
    closed form, and at most to the target (for a negative level: to its opposite); activations
    with too little in the plane stop where h is best on their way and count as not reached.

    With ``turn="by"`` every activation turns by the angle instead, whatever its own is: the flow of
    a skew-symmetric linear field for the time θ (Selective Steering, arXiv 2601.19375). Angles
    between activations stay, and ``interpolation`` multiplies θ.

    With ``plane="shared"`` several layers, fitted together, turn in one plane, as published: the
    candidates at the layers are the differences of the classes' mean directions, b₁ is the one most
    alike to the others, and b₂ the first principal component of the candidates, orthogonal to b₁.

    Parameters:
        angle: the target, degrees from b₁ towards b₂; with ``turn="by"`` the turn in degrees,
            positive from b₂ towards b₁, so that it raises h of activations on b₂'s side.
        amount: default; a number is an interpolation, the fraction of the turn to the target.
        max_strength: the longest arc, of turns to a level too, in class
            deviations; None for no cap, as published. Where a few coordinates hold most of the norm
            they lie in the plane, and the whole turn destroys what the model says.
        fitting: of the quantiles that levels count in, see `Fitting`.
        turn: ``to`` the angle, or ``by`` it.
        plane: each layer's ``own``, or one that is ``shared`` by layers fitted together.

    Learned: ``barrier_``, ``plane_`` the rows b₁ and b₂ `[2, d]`, and ``separation_`` ‖μ₊ - μ₋‖,
    activation units.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation", "level")
    dynamics: ClassVar[str] = "rotation to an angle in the plane of μ₊ - μ₋ and a component"
    barrier_summary: ClassVar[str] = "(μ₊ - μ₋)·(a - (μ₊ + μ₋)/2)"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "O(d)"
    reference: ClassVar[str] = "Vu and Nguyen, NeurIPS 2025, arXiv 2510.26243"

    barrier_: MeanDifferenceBarrier
    plane_: Tensor
    separation_: float

    added_parameters: ClassVar[Mapping[str, Any]] = {
        "max_strength": None,
        "turn": "to",
        "plane": "own",
    }
    amount_words: ClassVar[tuple[str, ...]] = ("interpolation",)

    def __init__(
        self,
        angle: float = 0.0,
        amount: Amount | float = 1.0,
        max_strength: float | None = 3.0,
        fitting: Fitting = Fitting(),
        turn: Turn = "to",
        plane: Plane = "own",
    ) -> None:
        self.angle = angle
        self.amount = amount
        self.max_strength = max_strength
        self.fitting = fitting
        self.turn = turn
        self.plane = plane

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier, linear in the activation."""
        self.check_fitted()
        return self.barrier_

    @property
    def fits_jointly(self) -> bool:
        return self.plane == "shared"

    def fit_layers(self, sides: Sequence[FitArguments]) -> list[Self]:
        if not self.fits_jointly:
            return super().fit_layers(sides)
        contrasts = [check_contrast(*side) for side in sides]
        copies = [self.with_params(plane="own").fit(*side) for side in sides]
        plane = shared_plane(contrasts)
        for number, (copy, contrast) in enumerate(zip(copies, contrasts, strict=True)):
            first = plane[0].to(contrast.positive)
            # Along b₁ alone, so that the barrier rises along it.
            along = [torch.outer(a @ first, first) for a in (contrast.positive, contrast.negative)]
            separation = float((along[0].mean(dim=0) - along[1].mean(dim=0)) @ first)
            if not separation > 0:
                raise InvalidInputError(
                    f"along the shared direction the positives lie below the negatives at layer"
                    f" {number + 1} of the {len(sides)} that were given; leave it out."
                )
            barrier = MeanDifferenceBarrier(fitting=self.fitting)
            copy.barrier_ = barrier.fit(along[0], along[1], contrast.group_pair)
            copy.plane_, copy.separation_ = plane.to(contrast.positive), separation
            copy.set_params(plane="shared")
        return copies

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        if not math.isfinite(self.angle):
            raise InvalidInputError(f"angle must be a number of degrees, not {self.angle}.")
        if self.turn not in get_args(Turn):
            raise InvalidInputError(f"turn must be to or by, not {self.turn!r}.")
        if self.plane not in get_args(Plane):
            raise InvalidInputError(f"plane must be own or shared, not {self.plane!r}.")
        if self.plane == "shared":
            raise InvalidInputError(
                "a shared plane is that of several layers; fit it at a list of two or more, as in"
                ' lm.fit(Angular(plane="shared"), data, layer=[10, 12, 14]).'
            )
        positive, negative = contrast.positive.double(), contrast.negative.double()
        difference = positive.mean(dim=0) - negative.mean(dim=0)
        rounding = 16 * torch.finfo(contrast.positive.dtype).eps * self.mean_norm_
        self.separation_ = float(difference.norm())
        if not self.separation_ > rounding:
            raise InvalidInputError("the means of both classes are equal; there is no direction.")
        first = difference / self.separation_
        second = _principal(torch.cat([a - a.mean(dim=0) for a in (positive, negative)]), first)
        if second is None:
            raise InvalidInputError(
                "the activations vary only along the difference of their means; there is no plane"
                " to turn in. Use CAA, or activations of more dimensions."
            )
        upwards = float((positive.mean(dim=0) + negative.mean(dim=0)) @ second) >= 0
        second = second if upwards else -second
        self.plane_ = torch.stack([first, second]).to(contrast.positive.dtype)
        barrier = MeanDifferenceBarrier(fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        plane = self.plane_.to(a)
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device).expand(a.shape[:-1])
        x, y = (a @ plane.T).unbind(-1)
        radius, tiny = torch.hypot(x, y), torch.finfo(a.dtype).tiny
        # A negative amount steers the opposite of the activation.
        sign = torch.where(value >= 0, 1.0, -1.0).to(a)
        if self.turn == "by":
            full_turn = sign * -math.radians(self.angle)
        else:
            full_turn = _wrapped(math.radians(self.angle % 360) - torch.atan2(sign * y, sign * x))
        reached = None
        if amount.quantity == "level":
            h = self.barrier_.value(a)
            tau = torch.as_tensor(self.barrier_.threshold(value)).to(a)
            missing = sign * (tau - h) / self.separation_
            turn, reached = _turn_to(missing, sign * x, sign * y, radius, full_turn)
        else:
            turn = value.abs() * full_turn
        if self.max_strength is not None:
            cap = self.max_strength * self.strength_unit / radius.clamp_min(tiny)
            capped = torch.maximum(torch.minimum(turn, cap), -cap)
            reached = None if reached is None else reached & (capped == turn)
            turn = capped
        # cos t - 1 as -2 sin²(t/2), which keeps the digits of small turns.
        less, across = -2 * torch.sin(turn / 2).square(), torch.sin(turn)
        change = torch.stack([less * x - across * y, across * x + less * y], dim=-1)
        state = torch.where(turn[..., None] == 0, a, a + change @ plane)
        return Solution(state, turn.abs() * radius, reached=reached)


def shared_plane(contrasts: Sequence[Contrast]) -> Tensor:
    """b₁ and b₂ `[2, d]` float64 of two or more layers, see `Angular`.

    Raises `InvalidInputError` where the layers' differences of mean directions span no plane.
    """
    if len(contrasts) < 2:
        raise InvalidInputError("a shared plane is that of two or more layers.")
    found = []
    for contrast in contrasts:
        means = [
            torch.nn.functional.normalize(
                torch.nn.functional.normalize(side.double(), dim=1).mean(dim=0), dim=0
            )
            for side in (contrast.positive, contrast.negative)
        ]
        found.append(means[0] - means[1])
    candidates = torch.stack(found)
    if not bool((candidates.norm(dim=1) > 1e-6).all()):
        raise InvalidInputError("the mean directions of both classes are equal at a layer.")
    units = torch.nn.functional.normalize(candidates, dim=1)
    alike = units @ units.T
    first = units[int((alike.sum(dim=1) - 1).argmax())]
    _, lengths, axes = torch.linalg.svd(units - units.mean(dim=0), full_matrices=False)
    second = axes[0] - (axes[0] @ first) * first
    if not float(lengths[0]) > 1e-6 or not float(second.norm()) > 1e-6:
        raise InvalidInputError("the directions of all layers are equal; they span no plane.")
    mean = sum(c.examples.double().mean(dim=0) / c.examples.norm(dim=1).mean() for c in contrasts)
    second = second if float(mean @ second) >= 0 else -second
    return torch.stack([first, second / second.norm()])


def _turn_to(
    missing: Tensor, x: Tensor, y: Tensor, radius: Tensor, full_turn: Tensor
) -> tuple[Tensor, Tensor]:
    """The signed turn of at most ``full_turn`` that raises x by ``missing``; whether it exists."""
    # Mirrored so that the turn is counterclockwise; x is large enough from -limit to limit.
    angle, longest = torch.atan2(torch.where(full_turn < 0, -y, y), x), full_turn.abs()
    cosine = (x + missing) / radius.clamp_min(torch.finfo(x.dtype).tiny)
    limit = torch.arccos(cosine.clamp(-1, 1))
    wanted = torch.where(angle < 0, (-limit - angle).clamp_min(0), 2 * math.pi - limit - angle)
    reachable = (cosine <= 1) & (wanted <= longest)
    # Otherwise x is largest at the angle 0 or at one of the ends.
    end = torch.where(torch.cos(angle + longest) > torch.cos(angle), longest, 0.0)
    best = torch.where((angle < 0) & (-angle <= longest), -angle, end)
    satisfied = missing <= 0
    turn = torch.where(satisfied, 0.0, torch.where(reachable, wanted, best))
    return torch.where(full_turn < 0, -turn, turn), satisfied | reachable


def _wrapped(angle: Tensor) -> Tensor:
    """The angle in radians, wrapped to [-π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _principal(residuals: Tensor, axis: Tensor) -> Tensor | None:
    """The first principal component of ``residuals`` `[n, d]` orthogonal to ``axis`` `[d]`.

    None where they vary by no more than rounding.
    """
    across = residuals - torch.outer(residuals @ axis, axis)
    n, d = across.shape
    if n < d:
        weights = torch.linalg.eigh(across @ across.T).eigenvectors[:, -1]
        vector = weights @ across
    else:
        vector = torch.linalg.eigh(across.T @ across).eigenvectors[:, -1]
    spread = (across @ vector).norm() / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)
    if not float(spread) > 1e-6 * float(residuals.norm()):
        return None
    vector = vector / vector.norm()
    vector = vector - (vector @ axis) * axis
    unit: Tensor = vector / vector.norm()
    return unit
