"""Conditional steering: a method applied only where a gate barrier is low."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Barrier, Contrast
from odesteer.errors import InvalidInputError
from odesteer.estimator import FittedPart
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.odesteer import ODESteer
from odesteer.methods.wrapper import Wrapper


class Conditional(Wrapper):
    """Another method where a gate g(a) is below a level, and nothing where it is not.

    The gate is evaluated once, at the unsteered activation; rows at or above the level are
    returned to the bit. Quantities are those of the method inside, and ``level`` is one of its
    own barrier. A row that is not steered counts as having reached a level only if it was there
    already.

    Parameters:
        method: the method inside; after `fit`, the fitted one.
        gate: the barrier g; after `fit`, the fitted one. None for the method's own barrier.
        below: the level of the gate at and above which rows are not steered: 0 its decision
            boundary, 1 the 90 % quantile of g over positives.
    """

    dynamics: ClassVar[str] = "the method's where g(a) < τ, a' = a elsewhere"
    barrier_summary: ClassVar[str] = "the method's; and the gate g, by default the same"
    solver_summary: ClassVar[str] = "the method's"
    cost: ClassVar[str] = "the method's and one value of g"
    reference: ClassVar[str] = (
        "this project; gated by the prompt instead: Lee et al., ICLR 2025, arXiv 2409.05907"
    )

    gate = FittedPart[Barrier | None]()
    gate_: Barrier

    def __init__(
        self, method: Method = ODESteer(), gate: Barrier | None = None, below: float = 0.0
    ) -> None:
        self.method = method
        self.gate = gate
        self.below = below

    @classmethod
    def around(cls, method: Method, **parameters: Any) -> Self:
        """The condition on a fitted method, by a fitted gate or the method's own barrier.

        Nothing is fitted again, so both may come from different data. Raises `NotFittedError` if
        one of them is not fitted.
        """
        wrapper = super().around(method, **parameters)
        gate = wrapper._gate()
        gate.check_fitted()
        if gate.width_ != method.width_:
            raise InvalidInputError(
                f"the gate was fitted on width {gate.width_}, the method on {method.width_}; both"
                " must come from the same layer of the same model."
            )
        gate.threshold(wrapper.below)
        return wrapper

    @property
    def keeps_norm(self) -> bool:  # type: ignore[override]
        return self.method.keeps_norm

    @property
    def field(self) -> Any:
        """The field of the method inside; AttributeError where it has none."""
        field = self.method.field  # type: ignore[attr-defined]
        self.check_fitted()
        return field

    def acts(self, a: Tensor) -> Tensor:
        """Mask `[...]` of the activations `[..., d]` that are steered."""
        self.check_fitted()
        gate = self._gate()
        return gate.value(a) < gate.threshold(self.below)

    def _fit(self, contrast: Contrast) -> None:
        super()._fit(contrast)
        if self.gate is not None:
            if not isinstance(self.gate, Barrier):
                raise InvalidInputError(f"the gate is a barrier, not {self.gate!r:.80}.")
            self.gate_ = self.gate.clone().fit(
                contrast.positive, contrast.negative, contrast.group_pair
            )
        gate = self._gate()
        gate.threshold(self.below)  # raises where the level has no meaning

    def _gate(self) -> Barrier:
        """The fitted gate. Raises `InvalidInputError` where there is none."""
        gate = self.gate
        if gate is None:
            gate = getattr(self.method, "barrier", None)
        if gate is None:
            name = type(self.method).__name__
            raise InvalidInputError(
                f"{name} has no barrier of its own to be gated by; give one, as in"
                f" Conditional({name}(), gate=LinearBarrier())."
            )
        if not isinstance(gate, Barrier):
            raise InvalidInputError(f"the gate is a barrier, not {gate!r:.80}.")
        return gate

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        acts = self.acts(a)
        solution = self.method.solve_usable(a, amount)
        reached, rejected = solution.reached, solution.rejected
        return replace(
            solution,
            state=torch.where(acts[..., None], solution.state, a),
            # A row that was at the level from the start has time 0.
            reached=None if reached is None else reached & (acts | (solution.time == 0)),
            rejected=None if rejected is None else torch.where(acts, rejected, 0),
            time=torch.where(acts, solution.time, 0.0),
        )
