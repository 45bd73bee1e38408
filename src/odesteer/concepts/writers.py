"""Writers of contrastive pairs: the model itself, or an OpenAI-compatible endpoint."""

from collections.abc import Sequence

from odesteer.concepts.pairs import Concept, PairWriter
from odesteer.data import Example
from odesteer.errors import ModelError
from odesteer.evaluation.judges.chat_endpoint import Endpoint, NoReplyError
from odesteer.evaluation.metrics.likelihood import log_likelihoods
from odesteer.models import SteeredModel
from odesteer.models.divergence import as_question


class ModelWriter(PairWriter):
    """The model itself, which also judges: by the likelihood of the answers.

    The margin of a pair is the smaller of two differences, nats a token: how much likelier the
    positive answer is under the positive instruction than under the negative one, and the negative
    answer the other way round.
    """

    def __init__(
        self, lm: SteeredModel, *, max_new_tokens: int = 60, batch_size: int = 16, seed: int = 0
    ) -> None:
        self._lm = lm
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._seed = seed

    def answers(self, concept: Concept, side: str, prompts: Sequence[str]) -> list[str | None]:
        asked = [as_question(self._lm, text, concept.instruction(side)) for text in prompts]
        return list(
            self._lm.generate(
                asked,
                max_new_tokens=self._max_new_tokens,
                do_sample=True,
                temperature=0.7,
                seed=self._seed,
                batch_size=self._batch_size,
            )
        )

    def margins(self, concept: Concept, rows: Sequence[tuple[str, str, str]]) -> list[float | None]:
        told = {}
        for side, word in enumerate((concept.positive, concept.negative)):
            asked = [as_question(self._lm, row[0], concept.instruction(word)) for row in rows]
            for answer in (0, 1):
                both = zip(asked, (row[1 + answer] for row in rows), strict=True)
                told[side, answer] = self._mean_likelihoods(list(both))
        return [
            min(told[0, 0][i] - told[1, 0][i], told[1, 1][i] - told[0, 1][i])
            for i in range(len(rows))
        ]

    def _mean_likelihoods(self, asked: Sequence[tuple[object, str]]) -> list[float]:
        """The log-likelihood of each answer behind its prompt, nats a token."""
        examples = [
            # A space, so that an answer does not grow together with a plain prompt.
            Example(prompt, answer if isinstance(prompt, tuple) else f" {answer}")  # type: ignore[arg-type]
            for prompt, answer in asked
        ]
        found = log_likelihoods(self._lm, examples, batch_size=self._batch_size, truncate=True)
        return [one.total / max(one.n_tokens, 1) for one in found]


class EndpointWriter(PairWriter):
    """A model behind an OpenAI-compatible endpoint, which also judges: which of two is which.

    Each pair is put to it once, every second one with its sides exchanged. Raises `ModelError`
    where the endpoint does not answer a single request, so that an address that is down is seen at
    once.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def answers(self, concept: Concept, side: str, prompts: Sequence[str]) -> list[str | None]:
        found: list[str | None] = []
        for prompt in prompts:
            asked = f"{concept.instruction(side)}\n\n{prompt}"
            found.append(self._ask(asked, first=not any(found)))
        return found

    def margins(self, concept: Concept, rows: Sequence[tuple[str, str, str]]) -> list[float | None]:
        margins: list[float | None] = []
        for i, (prompt, good, bad) in enumerate(rows):
            exchanged = i % 2 == 1
            first, second = (bad, good) if exchanged else (good, bad)
            reply = self._ask(
                f"Two answers to: {prompt}\n\nA: {first}\n\nB: {second}\n\nWhich of them is more"
                f" {concept.positive}, and the other more {concept.negative}? Reply with the single"
                " letter A or B, or with N if neither."
            )
            letter = (reply or "").strip().strip("*.\"'").upper()[:1]
            margins.append(
                {"A": 1.0, "B": -1.0}.get(letter, 0.0) * (-1.0 if exchanged else 1.0)
                if letter in ("A", "B", "N")
                else None
            )
        return margins

    def _ask(self, prompt: str, first: bool = False) -> str | None:
        """The first usable reply; None where there is none. Raises `ModelError` for the first."""
        try:
            return next(text for text in self._endpoint.ask(prompt) if text.strip())
        except (NoReplyError, StopIteration) as error:
            if first:
                raise ModelError(
                    f"{self._endpoint.url} gives no answer ({error or 'empty replies'}); check that"
                    " the server runs, and the address, which ends in /v1 mostly."
                ) from None
            return None
