"""Costs of steering: KL and perplexity on neutral text, and simple questions of no task."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import torch
from torch import Tensor

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import Example, Message
from odesteer.evaluation.metrics import mc2
from odesteer.evaluation.metrics.likelihood import log_likelihoods
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.methods import Amount
from odesteer.models import Divergence, Encoded, SteeredModel, neutral_prompts
from odesteer.models.divergence import kl_divergence

ANSWER_TOKENS = 24
"""The most tokens of an answer to a neutral prompt."""


@dataclass(frozen=True)
class UnrelatedQuestion:
    """A question with its right answer, the first, and wrong ones."""

    question: str
    answers: tuple[str, ...]


def unrelated_questions() -> tuple[UnrelatedQuestion, ...]:
    """The bundled questions: everyday knowledge, a right answer and three wrong ones each."""
    text = files("odesteer.evaluation.equal_cost").joinpath("unrelated.json")
    rows = json.loads(text.read_text(encoding="utf-8"))
    return tuple(UnrelatedQuestion(row[0], tuple(row[1:])) for row in rows)


class CostMeter:
    """Measures what steering a model costs.

    The neutral text is the unsteered model's own answers to the first ``n_texts`` bundled
    prompts for validation, which are not those that anything is trained on.
    """

    def __init__(self, lm: SteeredModel, n_texts: int) -> None:
        self._lm = lm
        self._scorer = PrefixScorer(lm)
        self.prompts = neutral_prompts("validation")[:n_texts]

    def neutral(self, steerer: Steerer | SteererSet, amount: Amount) -> dict[str, float]:
        """``kl``, KL(unsteered ‖ steered) in nats a token, and its standard ``error``."""
        if PrefixScorer.can_score(self._lm, steerer):
            steered = self._scorer.log_probabilities(self._texts, steerer, amount)
            pairs = zip(self._reference, steered, strict=True)
            per_text = torch.stack([kl_divergence(p, q).double().mean() for p, q in pairs])
            tokens = torch.tensor([len(logs) for logs in self._reference])
            return _figures(Divergence(per_text.cpu(), tokens))
        quantity = {amount.quantity: amount.value}
        found = self._lm.divergence(
            steerer,
            prompts=self.prompts,
            max_new_tokens=ANSWER_TOKENS,
            **quantity,  # type: ignore[arg-type]
        )
        return _figures(found)

    def of_prompt(self, system: str) -> dict[str, float]:
        """The same of a system prompt, or of a text in front of base models."""
        return _figures(
            self._lm.divergence(system=system, prompts=self.prompts, max_new_tokens=ANSWER_TOKENS)
        )

    def side_effects(
        self, steerer: Steerer | SteererSet | None = None, amount: Amount | None = None
    ) -> dict[str, float]:
        """``neutral_perplexity`` of the neutral answers, and ``unrelated_mc``, the share of
        probability on the right answers to unrelated questions."""
        scorer = self._scorer
        if PrefixScorer.can_score(self._lm, steerer):
            texts = scorer.log_likelihoods(self._texts, steerer, amount)
            nll = -math.fsum(one.total for one in texts) / sum(one.n_tokens for one in texts)
            perplexity = {"neutral_perplexity": math.exp(min(nll, 700.0))}
        else:
            perplexity = {}
        found = log_likelihoods(self._lm, self._choices, steerer, amount, scorer=scorer)
        n = len(unrelated_questions()[0].answers)
        labels = [1] + [0] * (n - 1)
        logs = [one.total for one in found]
        shares = [mc2(logs[i : i + n], labels) for i in range(0, len(logs), n)]
        return {**perplexity, "unrelated_mc": math.fsum(shares) / len(shares)}

    @cached_property
    def _texts(self) -> list[Encoded]:
        return self._lm.neutral_texts(self.prompts, max_new_tokens=ANSWER_TOKENS).texts

    @cached_property
    def _reference(self) -> list[Tensor]:
        return self._scorer.log_probabilities(self._texts)

    @cached_property
    def _choices(self) -> list[Example]:
        chat = bool(getattr(self._lm.tokenizer, "chat_template", None))
        return [
            Example((Message("user", one.question),), answer)
            if chat
            else Example(f"Q: {one.question}\nA:", f" {answer}")
            for one in unrelated_questions()
            for answer in one.answers
        ]


def _figures(found: Divergence) -> dict[str, float]:
    return {
        "kl": float(f"{found.mean:.9g}"),
        "error": float(f"{found.standard_error:.6g}"),
    }
