"""Objective on likelihoods: the margin of positive over negative held-out responses."""

from collections.abc import Sequence
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.models import Encoded, SteeredModel
from odesteer.tuning.objectives.base import Measurement, Objective
from odesteer.tuning.objectives.log_likelihood import log_likelihoods
from odesteer.tuning.objectives.prompts import evenly_spaced, generation_prompts, prompt_responses


class LikelihoodMargin(Objective):
    """The rise of the likelihood of held-out positive responses over that of negative ones.

    The value of a prompt is the mean log-likelihood of its positive responses, nats a token, less
    that of its negative ones, each relative to the unsteered model. The cost in fluency is the fall
    in log-likelihood of a text that the unsteered model samples after the prompt, once: an estimate
    of the KL divergence from the unsteered to the steered model.

    Parameters:
        lm: the model.
        data: held-out contrastive data.
        max_items: at most so many prompts, evenly spaced over the data.
        max_new_tokens: of the sampled texts.
        seed: of the sampling.
        batch_size: texts at a time.
    """

    title = "rise of the likelihood margin of positive over negative responses, nats a token"
    fluency_title = "fall in likelihood of the unsteered model's own texts (KL), nats a token"

    def __init__(
        self,
        lm: SteeredModel,
        data: ContrastData,
        *,
        max_items: int = 96,
        max_new_tokens: int = 32,
        seed: int = 0,
        batch_size: int = 16,
    ) -> None:
        if max_items < 1:
            raise InvalidInputError(f"max_items must be positive, not {max_items}.")
        self.lm = lm
        self.data = data
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self.batch_size = batch_size
        self.prompt_responses = evenly_spaced(prompt_responses(data), max_items)
        self._texts: list[list[Encoded]] = []
        # 1 for positive responses, -1 for negative ones, 0 for texts of the unsteered model.
        self._signs: list[list[float]] = []
        self._unsteered: list[list[float | None]] = []

    @property
    def n_items(self) -> int:
        return len(self.prompt_responses)

    def about(self) -> dict[str, Any]:
        return {
            "objective": "likelihood",
            "value": self.title,
            "fluency": self.fluency_title,
            "prompts": self.n_items,
            "data_digest": self.data.digest(),
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
        }

    def measure(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> list[Measurement]:
        self._prepare()
        found = self._likelihoods(steerer, amount, items)
        return [
            self._measurement(i, likelihoods) for i, likelihoods in zip(items, found, strict=True)
        ]

    def _measurement(self, i: int, likelihoods: Sequence[float | None]) -> Measurement:
        """The measurement of item ``i``; its likelihoods are in the order of ``self._signs[i]``."""
        raised: dict[float, list[float]] = {1.0: [], -1.0: [], 0.0: []}
        for sign, now, before in zip(self._signs[i], likelihoods, self._unsteered[i], strict=True):
            if now is not None and before is not None:
                raised[sign].append(now - before)
        sides = [sign * _mean(raised[sign]) for sign in (1.0, -1.0) if raised[sign]]
        own = raised[0.0]
        return Measurement(sum(sides) if sides else None, -_mean(own) if own else None)

    def _prepare(self) -> None:
        """Sample one unsteered text a prompt, and score all texts without steering; once."""
        if self._unsteered:
            return
        prompts = [generation_prompts([responses])[0] for responses in self.prompt_responses]
        written = self.lm.generate(
            prompts,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            batch_size=self.batch_size,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
        )
        self._texts, self._signs = [], []
        for responses, prompt, text in zip(self.prompt_responses, prompts, written, strict=True):
            positive, negative = responses.examples
            own = (Example(prompt, text),) if text.strip() else ()
            self._texts.append([self.lm.encode(e) for e in (*positive, *negative, *own)])
            self._signs.append([1.0] * len(positive) + [-1.0] * len(negative) + [0.0] * len(own))
        self._unsteered = self._likelihoods(None, None, range(self.n_items))

    def _likelihoods(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> list[list[float | None]]:
        texts = [text for i in items for text in self._texts[i]]
        found = log_likelihoods(self.lm, texts, steerer, amount, batch_size=self.batch_size)
        means = iter([each.mean for each in found])
        return [[next(means) for _ in self._texts[i]] for i in items]


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / len(figures)
