"""Objective on generated texts: the mean verdict of a judge on steered continuations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import Example
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.tuning.objectives.base import Measurement, Objective
from odesteer.tuning.objectives.log_likelihood import log_likelihoods
from odesteer.tuning.objectives.prompts import Prompt

TextJudge = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float | None]]
"""Returns a value for each text, more is better; None where it cannot tell."""

SAMPLING: Mapping[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}


class WrittenTexts(Objective):
    """The mean verdict of a judge on continuations of validation prompts.

    The cost in fluency of a prompt is the negative log-likelihood of the continuation under the
    unsteered model, nats a token, less that of an unsteered continuation.

    Parameters:
        lm: the model.
        prompts: validation prompts.
        judge: judges the continuations.
        title: the meaning of the judge's value, for tables and plots.
        max_new_tokens: of a continuation.
        seed: of the sampling.
        batch_size: prompts at a time.
        description: of the judge, as plain data.
        options: for generation; `SAMPLING` by default.
    """

    fluency_title = "negative log-likelihood of the text under the unsteered model, less that of"
    fluency_title += " unsteered texts, nats a token"

    def __init__(
        self,
        lm: SteeredModel,
        prompts: Sequence[Prompt],
        judge: TextJudge,
        *,
        title: str,
        max_new_tokens: int = 48,
        seed: int = 0,
        batch_size: int = 32,
        description: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] = SAMPLING,
    ) -> None:
        if not prompts:
            raise InvalidInputError("there are no prompts to select on; give at least one.")
        self.lm = lm
        self.prompts = tuple(prompts)
        self.judge = judge
        self.title = title
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self.batch_size = batch_size
        self.description = dict(description or {})
        self.options = dict(options)
        self._unsteered_costs: dict[range, list[float | None]] = {}

    @property
    def n_items(self) -> int:
        return len(self.prompts)

    def about(self) -> dict[str, Any]:
        return {
            "objective": "written",
            "value": self.title,
            "fluency": self.fluency_title,
            "prompts": self.n_items,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "generation": self.options,
            **self.description,
        }

    def measure(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> list[Measurement]:
        texts = self.write(steerer, amount, items)
        prompts = [self.prompts[i] for i in items]
        values = self.judge(prompts, texts)
        if len(values) != len(texts):
            raise InvalidInputError(
                f"the judge gave {len(values)} verdicts on {len(texts)} texts; it must give one"
                " for each, None where it cannot tell."
            )
        costs = self._mean_losses(prompts, texts)
        if steerer is None:
            self._unsteered_costs[items] = costs
        elif items not in self._unsteered_costs:
            self._unsteered_costs[items] = self._mean_losses(prompts, self.write(None, None, items))
        return [
            Measurement(value, _difference(cost, own))
            for value, cost, own in zip(values, costs, self._unsteered_costs[items], strict=True)
        ]

    def write(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> list[str]:
        """Continuations of the prompts ``items``."""
        quantity: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
        return self.lm.generate(
            [self.prompts[i] for i in items],
            steerer,
            max_new_tokens=self.max_new_tokens,
            # Each range has a seed of its own, the same for all settings.
            seed=self.seed * 1_000_003 + items.start,
            batch_size=self.batch_size,
            **quantity,
            **self.options,
        )

    def _mean_losses(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float | None]:
        """Negative log-likelihood under the unsteered model, nats a token; None for blank texts."""
        written = [i for i, text in enumerate(texts) if text.strip()]
        encoded = [self.lm.encode(Example(prompts[i], texts[i])) for i in written]
        found = log_likelihoods(self.lm, encoded, batch_size=self.batch_size)
        costs: list[float | None] = [None] * len(texts)
        for i, likelihood in zip(written, found, strict=True):
            mean = likelihood.mean
            costs[i] = None if mean is None else -mean
        return costs


def _difference(cost: float | None, own: float | None) -> float | None:
    return None if cost is None or own is None else cost - own
