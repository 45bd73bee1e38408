"""RE-Control: gradient ascent on a value network (Kong et al., NeurIPS 2024, arXiv 2406.05954)."""

import math
from collections.abc import Hashable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Barrier, Contrast, ValueBarrier
from odesteer.barriers.value import check_rewards
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Euler, GradientField, ReachValue, Solution, VectorField, solve
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.base import Method, class_deviation


class REControl(Method):
    """Moves an activation by several steps of gradient ascent on a learned value function V.

    Each step goes from a to a' = a + η(∇V(a) - (λ/m²)(a' - a₀)), ascent on V less the penalty
    (λ/2)‖a - a₀‖²/m² on the distance from the start a₀ in mean activation norms m. That is Euler
    along the gradient flow of V with a tether: explicit in V, implicit in the tether (a proximal
    step), and so stable for any λ. The quantities differ in where it stops:

    ``level``: where V - r₀, see `ValueBarrier`, has the value, located within the step; at most
    ``max_strength`` away. ``strength``: after that arc length; both in class
    deviations. Both
    follow the flow at unit speed, slower only where the tether holds back. ``T``: the published
    η·n_steps, along ∇V as it is; in activation units² per unit of reward, so it does not carry
    over between models. Negative amounts descend; the tether always pulls to the start.

    `fit` learns V from labels; `fit_rewards` from real-valued rewards.

    Parameters:
        barrier: the value network to climb; after `fit`, the fitted one.
        n_steps: steps of ascent.
        regularisation: λ, in units of reward; 0 for none.
        amount: default; a number is a level of the barrier (0 the boundary r₀, 1 the 90 % quantile
            of V - r₀ over positives).
        max_strength: the cap on the arc length of an ascent to a level, in class
            deviations.
    """

    step_parameters: ClassVar[tuple[str, ...]] = ("n_steps",)
    quantities: ClassVar[tuple[str, ...]] = ("level", "T", "strength")
    dynamics: ClassVar[str] = "gradient of a value network, v = ∇V - (λ/m²)(a - a₀)"
    barrier_summary: ClassVar[str] = "V - r₀, V a network that regresses labels or rewards"
    solver_summary: ClassVar[str] = "explicit Euler, n_steps"
    cost: ClassVar[str] = "O(d m n), m the width of the first hidden layer, n steps"
    reference: ClassVar[str] = "Kong et al., NeurIPS 2024, arXiv 2406.05954"

    barrier = FittedPart[ValueBarrier]()
    barrier_: ValueBarrier
    amount_words: ClassVar[tuple[str, ...]] = ("level",)

    def __init__(
        self,
        barrier: ValueBarrier = ValueBarrier(),
        n_steps: int = 10,
        regularisation: float = 0.0,
        amount: Amount | float = 1.0,
        max_strength: float = 10.0,
    ) -> None:
        self.barrier = barrier
        self.n_steps = n_steps
        self.regularisation = regularisation
        self.amount = amount
        self.max_strength = max_strength

    @classmethod
    def paper(cls, step_size: float = 1.0, n_steps: int = 30) -> "REControl":
        """The published form: n plain steps η∇V on a V that is consistent between tokens.

        ``step_size`` is η; the amount is T = η·n. V is fitted to the tokens of texts, behind the
        last norm: ``lm.fit(REControl.paper(), data, lm.n_layers - 1, part="final",
        position="answer")``, or `fit_rewards` with the texts as groups. The paper uses η = 1 with
        30 steps, and 0.001 with 100. Its weight of the consistency term is not known; here 1.
        """
        amount = Amount("T", step_size * n_steps)
        return cls(ValueBarrier(consistency=1.0), n_steps, amount=amount)

    @property
    def field(self) -> "ValueGradient":
        """∇V without the tether; `T` is the time along it."""
        self.check_fitted()
        return ValueGradient(self.barrier)

    def fit_rewards(
        self,
        activations: Tensor,
        rewards: Tensor | Sequence[float],
        groups: Sequence[Hashable] | Tensor | None = None,
    ) -> Self:
        """Fit to activations `[n, d]` and their real-valued rewards `[n]`.

        Levels count from the mean reward, in quantiles of V over the examples above and below it.
        Examples that share a label of ``groups`` `[n]` are never split between folds. Raises
        `InvalidInputError` as `fit` does, and for rewards that are not finite or do not vary.
        """
        contrast = check_rewards(activations, rewards, groups)
        self._check_parameters()
        self.forget()
        try:
            self.width_ = contrast.width
            self.mean_norm_ = float(contrast.examples.norm(dim=1).double().mean())
            self.strength_unit_ = class_deviation(contrast)
            self.barrier_ = self.barrier.clone().fit_rewards(activations, rewards, groups)
        except BaseException:
            self.forget()  # half a fit is none
            raise
        return self

    def _fit(self, contrast: Contrast) -> None:
        self._check_parameters()
        self.barrier_ = self.barrier.clone().fit(
            contrast.positive, contrast.negative, contrast.group_pair
        )

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])
        sign = torch.where(value < 0, -1.0, 1.0).to(a)
        until = None
        if amount.quantity == "level":
            until = ReachValue(self.barrier.threshold(value))
            duration = sign * (self.max_strength * self.strength_unit)
        else:
            duration = value if amount.quantity == "T" else value * self.strength_unit
        field = TetheredAscent(
            self.barrier,
            start=a.reshape(-1, a.shape[-1]),
            pull=sign.reshape(-1, 1) * (self.regularisation / self.mean_norm_**2),
            step=duration.reshape(-1, 1) / self.n_steps,
            unit=amount.quantity != "T",
        )
        # The tether counts on equal steps.
        return solve(field, a, duration, Euler(self.n_steps, "cap"), until=until)

    def _check_parameters(self) -> None:
        check_max_strength(self.max_strength)
        Euler(self.n_steps).check()
        if not isinstance(self.barrier, ValueBarrier):
            raise InvalidInputError(
                f"REControl climbs a ValueBarrier, not {self.barrier!r}; for other barriers use"
                " ODESteer."
            )
        if not 0 <= self.regularisation < math.inf:
            raise InvalidInputError(
                f"regularisation must be a number of at least 0, not {self.regularisation}."
            )


class ValueGradient(VectorField):
    """v = ∇V, in units of reward per activation unit; not of unit speed."""

    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier

    def __call__(self, a: Tensor) -> Tensor:
        return self.barrier.gradient(a)


class TetheredAscent(GradientField):
    """v = (∇V - ρ(a - a₀))/(s + Δt·ρ), with ``unit`` s = ‖∇V‖, else 1.

    An explicit Euler step of size Δt along it is implicit in the tether ρ(a - a₀).

    Args:
        barrier: V.
        start: a₀, `[n, d]`.
        pull: ρ, `[n, 1]`, negative for flows that are followed backwards, so that the tether
            pulls to the start in both.
        step: Δt, `[n, 1]`, of the sign of ρ.
        unit: whether the speed is 1 without a tether, rather than ‖∇V‖.
    """

    def __init__(
        self, barrier: Barrier, *, start: Tensor, pull: Tensor, step: Tensor, unit: bool
    ) -> None:
        super().__init__(barrier)
        self.start = start
        self.pull = pull
        self.step = step
        self.unit = unit

    def with_value_and_rate(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient = self.barrier.value_and_gradient(a)
        speed = torch.ones_like(self.step)
        if self.unit:
            shortest = math.sqrt(torch.finfo(a.dtype).tiny)
            speed = gradient.norm(dim=-1, keepdim=True).clamp_min(shortest)
        ascent = gradient - self.pull * (a - self.start)
        velocity = ascent / (speed + self.step * self.pull)
        return value, velocity, (gradient * velocity).sum(dim=-1)
