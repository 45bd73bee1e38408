"""Writers of contrastive pairs: the model itself, or an OpenAI-compatible endpoint."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from odesteer.concepts.pairs import Concept, PairWriter
from odesteer.data import Example
from odesteer.errors import ModelError
from odesteer.evaluation.judges.chat_endpoint import Endpoint, NoReplyError
from odesteer.evaluation.metrics.likelihood import log_likelihoods
from odesteer.models import SteeredModel
from odesteer.models.divergence import as_question

T = TypeVar("T")


class ModelWriter(PairWriter):
    """The model itself, which also judges: by the likelihood of the answers.

    The margin of a pair is the smaller of two differences, nats a token: how much likelier the
    positive answer is under the positive instruction than under the negative one, and the negative
    answer the other way round. With ``progress`` a bar on stderr shows how far it is.
    """

    def __init__(
        self,
        lm: SteeredModel,
        *,
        max_new_tokens: int = 60,
        batch_size: int = 16,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self._lm = lm
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._seed = seed
        self._progress = progress

    def answers(self, concept: Concept, side: str, prompts: Sequence[str]) -> list[str | None]:
        asked = [as_question(self._lm, text, concept.instruction(side)) for text in prompts]
        found: list[str | None] = []
        for start, some in self._batches(asked, f"{side} answers"):
            found += self._lm.generate(
                some,
                max_new_tokens=self._max_new_tokens,
                do_sample=True,
                temperature=0.7,
                seed=self._seed + start,
            )
        return found

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
        return [
            one.total / max(one.n_tokens, 1)
            for _, some in self._batches(examples, "judging")
            for one in log_likelihoods(self._lm, some, batch_size=len(some), truncate=True)
        ]

    def _batches(self, all_of_them: Sequence[T], what: str) -> Iterator[tuple[int, list[T]]]:
        """Each batch, and the number of its first element."""
        with tqdm(total=len(all_of_them), desc=what, disable=not self._progress) as bar:
            for start in range(0, len(all_of_them), self._batch_size):
                some = list(all_of_them[start : start + self._batch_size])
                yield start, some
                bar.update(len(some))


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
