"""Bridge: a sampled transport field on the sphere, from an entropic optimal transport plan."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, Fitting, MeanDifferenceBarrier, UnitSphere
from odesteer.errors import InvalidInputError
from odesteer.flows import Geodesic, Solution, VectorField, solve
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.rotation import Rotation
from odesteer.untrusted import is_integer, is_number

_SCALING_STEPS = 5  # of Sinkhorn's algorithm, as published
_NEIGHBOUR = 5  # whose median distance is σ


class Bridge(Method):
    """Carries directions along the transport plan between the two classes; keeps ‖a‖ exactly.

    All examples lie on the unit sphere, with d(·,·) the angle between two of them. The plan of
    least cost c_ji = d(x_j⁻, x_i⁺)²/2σ² with entropy, σ the median angle to the 5th neighbour, has
    the potentials φ_j and ψ_i (5 steps of Sinkhorn's algorithm). At a direction q

        V(q) = Σᵢ wᵢ⁺ log_q(xᵢ⁺) - Σⱼ wⱼ⁻ log_q(xⱼ⁻),

    w⁺ the softmax over i of ψᵢ(q) - d(q, xᵢ⁺)²/2s₊² with ψᵢ(q) = log Σⱼ exp(φⱼ - d(q, xⱼ⁻)²/2s₋² -
    c_ji), w⁻ likewise from φⱼ(q), s the angle to the furthest example of a class, and log_q(x) the
    tangent at q towards x, as long as the angle. An activation follows V at unit speed over the
    arc λ δ θ₀, with θ₀ its angle to the mean difference of directions r̂ and δ = σ(-2κ cos θ₀): all
    but nothing where it points to the positives. This is the field of COBRAS (arXiv 2607.10517);
    its gate is a barrier of its own, as in ``Conditional(Bridge(), gate=NeighbourBarrier())``.

    It sees directions alone: where a few coordinates hold most of a norm, all look alike to it. The
    examples that are kept are in saved files. A token takes O(n(d + n)) a step.

    Parameters:
        max_examples: n, kept of each class, drawn by the seed where there are more.
        n_steps: of the geodesic solver.
        concentration: κ, positive.
        amount: default; a number is an interpolation, λ. Negative ones go against V, by shares of
            the angle to -r̂.
        fitting: of the held-out quantiles of the barrier, see `Fitting`; the seed also draws the
            examples.

    Learned: ``positive_`` and ``negative_``, unit examples `[n, d]`; ``costs_`` c `[n₋, n₊]`;
    ``potentials_`` φ `[n₋]` and ψ `[n₊]`; ``widths_`` σ, s₊ and s₋, radians; ``direction_`` r̂
    `[d]`; and ``barrier_``, the mean difference of directions.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "da/dt along V/‖V‖ on the sphere, V of an entropic transport plan"
    barrier_summary: ClassVar[str] = "w·a/‖a‖ + b, w the difference of mean directions"
    solver_summary: ClassVar[str] = "geodesic Euler, 10 steps"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "O(n(d + n)) a step, n examples kept of each class"
    reference: ClassVar[str] = "Dalili et al., 2026, arXiv 2607.10517 (COBRAS), without its gate"

    step_parameters: ClassVar[tuple[str, ...]] = ("n_steps",)
    size_parameters: ClassVar[tuple[str, ...]] = ("max_examples",)

    barrier_: MeanDifferenceBarrier
    direction_: Tensor
    positive_: Tensor
    negative_: Tensor
    costs_: Tensor
    potentials_: list[Tensor]
    widths_: list[float]

    def __init__(
        self,
        max_examples: int = 128,
        n_steps: int = 10,
        concentration: float = 20.0,
        amount: Amount | float = 0.5,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.max_examples = max_examples
        self.n_steps = n_steps
        self.concentration = concentration
        self.amount = amount
        self.fitting = fitting

    @property
    def barrier(self) -> MeanDifferenceBarrier:
        """The fitted barrier, which tells on which side an activation is."""
        self.check_fitted()
        return self.barrier_

    @property
    def field(self) -> "BridgeField":
        """V/‖V‖, tangent to the sphere through each activation."""
        self.check_fitted()
        return BridgeField(self)

    def _fit(self, contrast: Contrast) -> None:
        for name in ("max_examples", "n_steps"):
            value = getattr(self, name)
            if not is_integer(value, 2 if name == "max_examples" else 1):
                raise InvalidInputError(f"{name} must be a whole number, not {value!r}.")
        if not is_number(self.concentration) or not self.concentration > 0:
            raise InvalidInputError(f"concentration must be above 0, not {self.concentration!r}.")
        unit = UnitSphere()
        sides = [unit(side) for side in (contrast.positive, contrast.negative)]
        weight = sides[0].double().mean(dim=0) - sides[1].double().mean(dim=0)
        if not float(weight.norm()) > 16 * torch.finfo(sides[0].dtype).eps:
            raise InvalidInputError(
                "the mean directions of both classes are equal, so there is nowhere to carry to."
            )
        self.direction_ = (weight / weight.norm()).to(sides[0])
        barrier = MeanDifferenceBarrier(UnitSphere(), fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.positive_, self.negative_ = (self._subset(side) for side in sides)
        everything = torch.cat([self.positive_, self.negative_])
        near = _angles(everything, everything).sort(dim=1).values
        spread = float(near[:, min(_NEIGHBOUR, near.shape[1] - 1)].median())
        if not spread > 0:
            raise InvalidInputError("most examples have equal directions; there is no transport.")
        furthest = [float(_angles(x, x).max()) for x in (self.positive_, self.negative_)]
        self.widths_ = [spread, *(max(width, spread) for width in furthest)]
        between = _angles(self.negative_.double(), self.positive_.double())
        kernel = -between.square() / (2 * spread**2)
        self.costs_ = -kernel.to(sides[0])
        psi = kernel.new_zeros(kernel.shape[1])
        for _ in range(_SCALING_STEPS):
            phi = -math.log(kernel.shape[0]) - (psi + kernel).logsumexp(dim=1)
            psi = -math.log(kernel.shape[1]) - (phi[:, None] + kernel).logsumexp(dim=0)
        self.potentials_ = [phi.to(sides[0]), psi.to(sides[0])]

    def _subset(self, examples: Tensor) -> Tensor:
        if len(examples) <= self.max_examples:
            return examples.clone()
        generator = torch.Generator().manual_seed(self.fitting.seed)
        chosen = torch.randperm(len(examples), generator=generator)[: self.max_examples]
        return examples[chosen.sort().values.to(examples.device)]

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        rotation = Rotation.towards(self.direction_.to(a), a)
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])
        angle, norm = rotation.angle[..., 0], rotation.norm[..., 0]
        sign = torch.where(value >= 0, 1.0, -1.0).to(a)
        left = torch.where(value >= 0, angle, torch.pi - angle)
        opposed = torch.sigmoid(-2 * self.concentration * sign * torch.cos(angle))
        arc = value * opposed * left * norm
        solution = solve(self.field, a, arc, Geodesic(self.n_steps))
        state = torch.where(value[..., None] == 0, a, solution.state)
        return Solution(state, arc.abs())


class BridgeField(VectorField):
    """V/‖V‖ at activations `[..., d]`, of any length; zero where V is."""

    def __init__(self, method: Bridge) -> None:
        self.method = method
        # Of each column and of each row its largest entry, so that products do not underflow.
        kernel = -method.costs_
        self._top = [kernel.amax(dim=0), kernel.amax(dim=1)]
        self._forward = (kernel - self._top[0]).exp()
        self._backward = (kernel - self._top[1][:, None]).exp()

    def __call__(self, a: Tensor) -> Tensor:
        method = self.method
        unit = torch.nn.functional.normalize(a, dim=-1).reshape(-1, a.shape[-1])
        positive, negative = method.positive_.to(a), method.negative_.to(a)
        phi, psi = (potential.to(a) for potential in method.potentials_)
        _, s_positive, s_negative = method.widths_
        cosines = unit @ positive.T, unit @ negative.T
        angles = [torch.arccos(cosine.clamp(-1, 1)) for cosine in cosines]
        near_positive = -angles[0].square() / (2 * s_positive**2)
        near_negative = -angles[1].square() / (2 * s_negative**2)
        tops = [top.to(a) for top in self._top]
        psi_here = tops[0] + _log_product(phi + near_negative, self._forward.to(a))
        phi_here = tops[1] + _log_product(psi + near_positive, self._backward.to(a).T)
        weights = (
            torch.softmax(psi_here + near_positive, dim=-1),
            -torch.softmax(phi_here + near_negative, dim=-1),
        )
        total = torch.zeros_like(unit)
        for x, cosine, angle, weight in zip(
            (positive, negative), cosines, angles, weights, strict=True
        ):
            # log_q(x) = θ/sin θ (x - cos θ q).
            scale = weight * angle / torch.sin(angle).clamp_min(torch.finfo(a.dtype).eps)
            total = total + scale @ x - (scale * cosine).sum(dim=-1, keepdim=True) * unit
        total = total - (total * unit).sum(dim=-1, keepdim=True) * unit
        length = total.norm(dim=-1, keepdim=True)
        shortest = math.sqrt(torch.finfo(a.dtype).tiny)
        velocity: Tensor = (total / length.clamp_min(shortest)).reshape(a.shape)
        return velocity


def _log_product(logs: Tensor, matrix: Tensor) -> Tensor:
    """log(exp(logs) @ matrix) of `[m, j]` and `[j, i]`, without overflow."""
    most = logs.amax(dim=-1, keepdim=True)
    product = (logs - most).exp() @ matrix
    found: Tensor = most + product.clamp_min(torch.finfo(logs.dtype).tiny).log()
    return found


def _angles(x: Tensor, y: Tensor) -> Tensor:
    """Between unit vectors `[n, d]` and `[m, d]`, radians `[n, m]`."""
    return torch.arccos((x @ y.T).clamp(-1, 1))
