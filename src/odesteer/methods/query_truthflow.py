"""TruthFlow in its published form: a correction vector from the state of a query."""

import math
from collections.abc import Hashable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast, check_contrast
from odesteer.barriers.pairing import counterparts
from odesteer.barriers.training import Training
from odesteer.errors import InvalidInputError
from odesteer.flows import Midpoint, Solution, Solver
from odesteer.methods.amount import Amount
from odesteer.methods.base import class_deviation
from odesteer.methods.constant import CAA
from odesteer.methods.truthflow import TruthFlow, leading_directions, time_features


class QueryTruthFlow(TruthFlow):
    """a + α·P x(1), with x(1) the correction that a learned flow makes of a query's state.

    Fitted to triples (`fit_triples`, from texts `odesteer.models.fit_triples`): the state x₀ of a
    query at its last token, and the correction Δ, the mean activation of the tokens of right
    answers to it minus that of wrong ones. A network u(x, t), which sees the state on the way and
    the time alone, is trained on rectified flow from x₀ to Δ, ‖u(x_t, t) - (Δ - x₀)‖² with x_t =
    (1 - t)x₀ + tΔ. P projects on the k leading right singular vectors of the corrections, not
    centred. The end point x(1) itself is added, not x(1) - x₀ (Wang et al., as their code has it).
    `TruthFlow` carries each token's activation to its counterpart instead, which needs no queries.

    As published the vector is made once, from the query, and added at every token: `at_query` gives
    it as a steerer of its own for one request. As it is, the method makes a vector of each
    activation that it is given; at the position ``last::1`` that is the query's last token.

    The flow starts from the exact one between two isotropic normal distributions with the means and
    spreads of x₀ and Δ. Where no weights bring end points nearer to held-out corrections than their
    mean is, x(1) is that mean (``n_epochs_`` is 0). `fit` takes the negative counterpart of each
    positive for the query.

    Parameters:
        amount: default; a number is an interpolation, α.
        rank: k; all singular vectors where there are fewer.
        solver: for t from 0 to 1; the network is evaluated once for each stage of each step.
        hidden: widths of the network's hidden layers, which are smooth (SiLU).
        training: of the network, see `Training`; its examples are triples.
        seed: of first weights, batches, times and held-out triples.

    Learned: ``basis_`` V_k `[d, k]`; ``means_`` of queries and of corrections `[2, d]`, and
    ``spreads_``, root mean square distances from them; ``velocity_``, the network; ``error_``,
    the root mean square distance of end points from held-out corrections (of all where none are
    held out) over ``scale_``, the root mean square length of corrections; ``n_epochs_``.
    """

    dynamics: ClassVar[str] = "learned velocity u(x, t) from the query to x(1); a' = a + αP x(1)"
    solver_summary: ClassVar[str] = "explicit midpoint rule, 15 steps (a parameter)"
    reference: ClassVar[str] = "Wang et al., ICML 2025, arXiv 2502.04556, as published"

    means_: Tensor
    spreads_: list[float]

    def __init__(
        self,
        amount: Amount | float = 1.5,
        rank: int = 20,
        solver: Solver = Midpoint(15),
        hidden: Sequence[int] = (256,),
        training: Training = Training(learning_rate=1e-3, max_epochs=200, keep_best=True),
        seed: int = 0,
    ) -> None:
        super().__init__(amount, rank, solver, hidden, training, seed)

    def fit_triples(
        self,
        queries: Tensor,
        positive: Tensor,
        negative: Tensor,
        groups: Sequence[Hashable] | Tensor | None = None,
    ) -> Self:
        """Fit to the states of queries and of their right and wrong answers, `[m, d]` each.

        Triples that share a label of ``groups`` `[m]` are never split between held-out ones and
        the rest. Raises `InvalidInputError` for sets of other shapes and as `fit` does.
        """
        if not queries.shape == positive.shape == negative.shape or queries.ndim != 2:
            shapes = [tuple(part.shape) for part in (queries, positive, negative)]
            raise InvalidInputError(f"triples are three tensors [m, d] alike, not {shapes}.")
        owners = list(range(len(queries)) if groups is None else groups)
        contrast = check_contrast(positive, negative, (owners, owners))
        if not queries.is_floating_point() or not bool(torch.isfinite(queries).all()):
            raise InvalidInputError("queries hold NaN or infinities, or are no floats; drop them.")
        self.check_amount(self.default_amount)
        self.forget()
        try:
            self.width_ = contrast.width
            self.mean_norm_ = float(queries.double().norm(dim=1).mean())
            self.strength_unit_ = class_deviation(contrast)
            self._learn(
                queries.to(contrast.positive),
                contrast.positive,
                contrast.negative,
                contrast.group_pair[0],
            )
        except BaseException:
            self.forget()  # never half fitted
            raise
        return self

    def correction(self, query: Tensor) -> Tensor:
        """P x(1) for states of queries, `[..., d] -> [..., d]`."""
        self.check_fitted()
        basis = self.basis_.to(query)
        corrected: Tensor = (self._end(query) @ basis) @ basis.T
        return corrected

    def at_query(self, query: Tensor, amount: float | None = None) -> CAA:
        """The constant method that adds the correction of one query `[d]`; α by default.

        Raises `InvalidInputError` for another shape.
        """
        self.check_fitted()
        if tuple(query.shape) != (self.width_,):
            raise InvalidInputError(
                f"a query is one activation [{self.width_}], not {tuple(query.shape)}."
            )
        wide = query.double() if query.dtype == torch.float64 else query.float()
        alpha = float(self.default_amount.value) if amount is None else amount
        vector = self.correction(wide)
        return CAA.from_direction(
            vector, strength_unit=self.strength_unit, amount=Amount("T", alpha)
        )

    def _fit(self, contrast: Contrast) -> None:
        negative, positive, groups = counterparts(contrast)
        self._learn(negative, positive, negative, groups)

    def _learn(self, queries: Tensor, positive: Tensor, negative: Tensor, groups: Tensor) -> None:
        self._check_parameters()
        held_out = self.training.held_out_pairs(groups, self.seed)
        with torch.inference_mode(False), torch.enable_grad():
            start = queries.detach().clone()
            end = (positive - negative).detach().clone()
            self.basis_ = leading_directions(end, self.rank)
            self.scale_ = _root_mean_square(end)
            if not self.scale_ > 0:
                raise InvalidInputError(
                    "every right answer has the state of the wrong one; there are no corrections."
                )
            self.means_ = torch.stack([start.mean(dim=0), end.mean(dim=0)])
            # Of equal vectors the spread is 0, and the flow has to have some width.
            self.spreads_ = [
                max(_root_mean_square(x - mean), 1e-3 * self.scale_)
                for x, mean in zip((start, end), self.means_, strict=True)
            ]
            n_inputs = start.shape[1] + time_features(start[:1, :1]).shape[1]
            unit = self.spreads_[0] ** 2 + self.spreads_[1] ** 2
            self._train(start, end, held_out, n_inputs=n_inputs, unit=unit, constant=self.means_[1])

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        change = value * self.correction(a)
        return Solution(torch.where(value == 0, a, a + change), change.norm(dim=-1))

    def _end(self, a: Tensor) -> Tensor:
        """x(1), `[..., d] -> [..., d]`; the mean correction where no flow is better."""
        return self._transported(a) if self.n_epochs_ else self.means_[1].to(a).expand_as(a)

    def _velocity(self, x: Tensor, t: Tensor, start: Tensor) -> Tensor:
        """u(x, t), `[n, d]`, from x `[n, d]` and t `[n, 1]`, whatever the start was."""
        (first, last), (s0, s1) = self.means_.to(x), self.spreads_
        off = x - ((1 - t) * first + t * last)
        # Between N(m₀, s₀²) and N(m₁, s₁²), independent: E(Δ - x₀ | x_t).
        variance = ((1 - t) * s0) ** 2 + (t * s1) ** 2
        prior = (last - first) + (t * s1**2 - (1 - t) * s0**2) / variance * off
        seen = torch.cat([off / variance.sqrt(), time_features(t)], dim=-1)
        # What is left unknown at t has the deviation s₀s₁ over that of x_t.
        scale = s0 * s1 / variance.sqrt() / math.sqrt(x.shape[-1])
        velocity: Tensor = prior + scale * self.velocity_.outputs(seen)
        return velocity


def _root_mean_square(rows: Tensor) -> float:
    """Of the lengths of `[m, d]`."""
    return float(rows.double().square().sum(dim=1).mean().sqrt())
