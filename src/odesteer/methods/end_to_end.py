"""EndToEnd: steering along a barrier that is learned end to end, through the model's outputs."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast, Groups, LinearPotential, Potential, Training
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Euler, FixedStep, PlainGradientField, ReachValue, Solution, solve
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.objectives import Preference, TrainingObjective

# Levels are sought up to this time.
_CAP = 8.0


class EndToEnd(Method):
    """Moves an activation along the gradient of a barrier that was trained through the model.

    Fitted barriers tell examples apart; this one is trained for what its flow does to the outputs
    of the model: output optimisation in the terms of arXiv 2602.17560, which leaves it to future
    work. The model stays frozen. `SteeredModel.fit` trains it, since it needs the model; the cost
    on neutral text is part of that.

    The flow da/dt = ρ∇h is not normalised, so that a barrier may act on some activations and not
    on others. T = 1 is the amount at which the cost asked for is reached, and the effect of T is
    about proportional. A level stops where h reaches it; h is in nats of log-odds: over T = 1 it
    rises in the mean by what the log-odds of desirable answers gain on held-out examples, and level
    1 is its mean there.

    Parameters:
        barrier: a `Potential`; after `fit`, the trained one. A linear one gives a steering vector.
        objective: what the outputs are to be, see `Preference`, `Likelihood`, `Distillation` and
            `Reward`.
        kl: the most that T = 1 may cost, KL(unsteered ‖ steered) on neutral text, nats a token,
            see `SteeredModel.divergence`.
        solver: with equal steps; a linear barrier takes one.
        training: see `Training`; batch_size counts pairs, or prompts, and a step of learning_rate r
            costs about r² of ``kl``.
        amount: default; a number is T.
        seed: of batches, held-out groups and first values.

    Learned: ``barrier_``; ``rate_`` ρ, activation units² per nat.
    """

    quantities: ClassVar[tuple[str, ...]] = ("T", "level")
    dynamics: ClassVar[str] = "da/dt = ρ∇h, for a time or up to a level"
    barrier_summary: ClassVar[str] = "learned through the model: linear, gated, quadratic, neural"
    solver_summary: ClassVar[str] = "explicit Euler, 4 steps; closed form where h is linear"
    cost: ClassVar[str] = "O(d) for a linear h, O(d r) a step for others"
    reference: ClassVar[str] = (
        "arXiv 2602.17560 (future work); constant fields: Cao et al., NeurIPS 2024,"
        " arXiv 2406.00045"
    )
    needs_model: ClassVar[bool] = True

    barrier = FittedPart[Potential]()
    barrier_: Potential
    rate_: float

    def __init__(
        self,
        barrier: Potential = LinearPotential(),
        objective: TrainingObjective = Preference(),
        kl: float = 0.1,
        solver: FixedStep = Euler(4),
        training: Training = Training(
            learning_rate=5e-2,
            weight_decay=0.0,
            batch_size=16,
            max_epochs=3,
            patience=2,
            tolerance=0.0,
            keep_best=True,
        ),
        amount: Amount | float = 1.0,
        seed: int = 0,
    ) -> None:
        self.barrier = barrier
        self.objective = objective
        self.kl = kl
        self.solver = solver
        self.training = training
        self.amount = amount
        self.seed = seed

    def fit(self, positive: Tensor, negative: Tensor, groups: Groups | None = None) -> Self:
        """Raises `InvalidInputError`: activations alone are not enough."""
        raise InvalidInputError(
            "EndToEnd is trained through the language model, and activations alone do not tell what"
            " moves it; call lm.fit(odesteer.EndToEnd(...), pairs, layer=...) with a SteeredModel."
        )

    def check(self) -> None:
        """Raise `InvalidInputError` for parameters with which nothing can be trained."""
        for name, kind in (
            ("barrier", Potential),
            ("objective", TrainingObjective),
            ("solver", FixedStep),
        ):
            value = self.get_params(deep=False)[name]
            if not isinstance(value, kind):
                raise InvalidInputError(
                    f"{name} of EndToEnd must be a {kind.__name__}, not {value!r:.80}."
                )
        if (
            isinstance(self.kl, bool)
            or not isinstance(self.kl, (int, float))
            or not (0 < self.kl < math.inf)
        ):
            raise InvalidInputError(
                f"kl must be a positive number of nats a token, not {self.kl!r}."
            )
        self.objective.check()
        self.training.check()
        self.solver.check()
        self.check_amount(self.default_amount)

    def begun(self, activations: Tensor) -> Self:
        """A copy with a barrier that is still flat, in the units of activations `[n, d]`."""
        begun = self.with_params(objective=self.objective.stored())
        barrier = self.get_params(deep=False)["barrier"].with_seed(self.seed)
        begun.width_ = activations.shape[1]
        begun.mean_norm_ = float(activations.double().norm(dim=1).mean())
        return begun._given(barrier.begun(activations))

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Self:
        """A copy whose barrier has other tensors, while it is trained."""
        copy = self.with_params()
        copy.width_, copy.mean_norm_ = self.width_, self.mean_norm_
        return copy._given(self.barrier_.adopt(dict(leaves)))

    def calibrated(self, gain: float, rise: float, start: float) -> Self:
        """A copy whose h is in nats of log-odds.

        Args:
            gain: of the log-odds of desirable answers over T = 1, nats.
            rise: of φ over T = 1, in the mean over activations.
            start: φ before, in the mean over activations.

        Without a positive gain and rise h stays φ, and levels have no meaning.
        """
        copy = self.with_leaves({})
        if gain > 0 and rise > 0 and math.isfinite(gain + rise):
            factor = gain / rise
            copy.barrier_.calibrate(factor, -factor * start, gain)
            copy.rate_ = copy.barrier_.inputs.scale_**2 / factor
        return copy

    def _given(self, barrier: Potential) -> Self:
        self.barrier_ = barrier
        self.rate_ = barrier.inputs.scale_**2
        self.strength_unit_ = barrier.inputs.scale_
        return self

    @property
    def field(self) -> PlainGradientField:
        """The vector field ρ∇h."""
        self.check_fitted()
        return PlainGradientField(self.barrier_, self.rate_)

    def constant_displacement(self, amount: Amount | None = None) -> Tensor | None:
        amount = self.default_amount if amount is None else amount
        self.check_fitted()
        if (
            not self.barrier_.is_linear
            or amount.quantity != "T"
            or isinstance(amount.value, Tensor)
        ):
            return None
        return amount.value * self.rate_ * self.barrier_.gradient(torch.zeros(self.width_))

    def _fit(self, contrast: Contrast) -> None:
        raise NotImplementedError  # `fit` is never called

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = amount.value
        if amount.quantity == "T":
            if self.barrier_.is_linear:
                return self._shifted(a, value)
            return solve(self.field, a, value, self.solver)
        until = ReachValue(self.barrier_.threshold(value))
        if isinstance(value, Tensor):
            cap: float | Tensor = torch.where(value >= 0, _CAP, -_CAP)
        else:
            cap = math.copysign(_CAP, value)
        return solve(self.field, a, cap, self.solver, until=until)

    def _shifted(self, a: Tensor, T: float | Tensor) -> Solution:
        shift = self.rate_ * self.barrier_.gradient(a)
        T = torch.as_tensor(T, dtype=a.dtype, device=a.device).expand(a.shape[:-1])
        # Adding zero would turn -0 into 0.
        state = torch.where(T[..., None] == 0, a, a + T[..., None] * shift)
        return Solution(state, T.abs())

    def written_params(self, params: dict[str, Any]) -> dict[str, Any]:
        return super().written_params({**params, "objective": self.objective.stored()})
