"""Judge of perplexity: that of completions under a model, given their prompts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores

if TYPE_CHECKING:
    from odesteer.models import SteeredModel


class Perplexity(Judge):
    """``nll``, nats a token, and ``perplexity``, its exponential.

    ``model`` is a hub id or a folder; the paper's is GPT-2 XL. The completion is scored as it is,
    after the text of the prompt (`Item.text`). Averages over completions are best of ``nll``: one
    wild completion decides a mean of perplexities. A completion without a token, or one that with
    its prompt does not fit into the model's context, is missing.
    """

    name: ClassVar[str] = "perplexity"
    metrics = ("perplexity", "nll")
    lower_is_better = frozenset(metrics)

    def __init__(
        self,
        *,
        model: str = "openai-community/gpt2-xl",
        device: str | None = None,
        batch_size: int = 16,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self._lm: SteeredModel | None = None

    @classmethod
    def of_model(cls, lm: "SteeredModel", batch_size: int) -> "Perplexity":
        """The judge with a model that is loaded already, used unsteered."""
        judge = cls(model=lm.model_id or "the model itself", batch_size=batch_size)
        judge._lm = lm
        return judge

    def about(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "what": "mean negative log-likelihood of a completion's tokens given its prompt",
            "model": self.model,
        }

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        from odesteer.data import Example
        from odesteer.errors import DataError
        from odesteer.evaluation.metrics.likelihood import log_likelihoods, nll, perplexity

        lm = self._load()
        examples: dict[int, Example] = {}
        for i, (item, text) in enumerate(zip(items, texts, strict=True)):
            try:
                example = Example(item.text, text)
                encoded = lm.encode(example)
            except (DataError, InvalidInputError):  # blank, or too long
                continue
            if len(encoded) > max(encoded.n_prompt, 1):
                examples[i] = example
        scores = [self._missing() for _ in items]
        scored = log_likelihoods(lm, list(examples.values()), batch_size=self.batch_size)
        for i, one in zip(examples, scored, strict=True):
            if math.isfinite(perplexity(one)):
                scores[i] = {"perplexity": perplexity(one), "nll": nll(one)}
        return scores

    def _load(self) -> "SteeredModel":
        if self._lm is None:
            from odesteer.models import SteeredModel

            self._lm = SteeredModel.from_pretrained(self.model, device=self.device)
        return self._lm
