"""Judge of perplexity: that of completions under a model, given their prompts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from odesteer.data import Message
from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.judges.model_files import model_identity, why_not_loadable

if TYPE_CHECKING:
    from odesteer.models import SteeredModel


class Perplexity(Judge):
    """``nll``, nats a token, and ``perplexity``, its exponential.

    ``model`` is a hub id or a folder; the paper's is GPT-2 XL. The completion is scored as it is,
    after its prompt: a chat goes through the model's chat template, as it did when the completion
    was generated, or is read as plain text by a model without one. ``alone`` scores it without
    the prompt, as the paper does. Averages over completions are best of ``nll``: one wild
    completion decides a mean of perplexities. A completion without a token, or one that with its
    prompt does not fit into the model's context, is missing.
    """

    version = 2

    name: ClassVar[str] = "perplexity"
    metrics = ("perplexity", "nll")
    lower_is_better = frozenset(metrics)

    def __init__(
        self,
        *,
        model: str = "openai-community/gpt2-xl",
        device: str | None = None,
        batch_size: int = 16,
        alone: bool = False,
    ) -> None:
        self.model = model
        self.alone = alone
        self.device = device
        self.batch_size = batch_size
        self._lm: SteeredModel | None = None
        self._is_of_model = False

    @classmethod
    def of_model(
        cls, lm: "SteeredModel | None", batch_size: int, *, alone: bool = False
    ) -> "Perplexity":
        """The judge with the model that is steered, unsteered; None before that is loaded."""
        name = None if lm is None else lm.model_id
        judge = cls(model=name or "the model itself", batch_size=batch_size, alone=alone)
        judge._is_of_model = True
        judge._lm = lm
        return judge

    def unavailable(self) -> str | None:
        return None if self._is_of_model else why_not_loadable(self.model)

    def identity(self) -> dict[str, Any]:
        return {} if self._is_of_model else model_identity(self.model)

    def about(self) -> dict[str, Any]:
        given = "alone" if self.alone else "given its prompt"
        return {
            "kind": "model",
            "what": f"mean negative log-likelihood of a completion's tokens {given}",
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
                example = Example(self._context(lm, item), text)
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

    def _context(self, lm: "SteeredModel", item: Item) -> str | tuple[Message, ...]:
        """What a completion is scored after."""
        if self.alone:
            return ""
        if isinstance(item.prompt, str) or getattr(lm.tokenizer, "chat_template", None):
            return item.prompt
        return f"{item.text}\n"

    def _load(self) -> "SteeredModel":
        if self._lm is None:
            from odesteer.models import SteeredModel

            self._lm = SteeredModel.from_pretrained(self.model, device=self.device)
        return self._lm
