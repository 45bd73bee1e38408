"""Base class of judges: scores for completions, None for what a judge cannot score."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item

Scores = dict[str, float | None]
"""A score for each metric of a judge; None if it is missing."""


class Judge(ABC):
    """Scores completions, item by item.

    What a judge cannot score is missing (None), never a guess. Models and data are loaded at the
    first use and kept. Constructors take keywords only, each with a default, and load nothing.

    Attributes:
        name: its name in the registry.
        version: of its prompt and its rules; scores of different versions do not mix.
        lower_is_better: those of its metrics of which less is better.
        is_exact: whether its verdicts are right by construction, so that nobody need measure it.
        blank: scores of a completion without text, the worst there are, so that silence wins
            nothing; None if the judge reads blanks like other texts.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    lower_is_better: frozenset[str] = frozenset()
    is_exact: ClassVar[bool] = False
    blank: ClassVar[Mapping[str, float] | None] = None

    def judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        """Scores for each completion, in order.

        Raises `InvalidInputError` with the remedy if this judge cannot work here, for items and
        texts that differ in number, and for items without the reference that the judge needs.
        """
        if len(items) != len(texts):
            raise InvalidInputError(f"{len(items)} items have {len(texts)} texts; give one each.")
        reason = self.unavailable()
        if reason is not None:
            raise InvalidInputError(f"the judge {self.name!r} cannot work here: {reason}")
        blank = self.blank
        if blank is None:
            return self._judge(items, texts) if items else []
        scores: list[Scores] = [dict(blank) for _ in items]
        present = [i for i, text in enumerate(texts) if text.strip()]
        if present:
            judged = self._judge([items[i] for i in present], [texts[i] for i in present])
            for i, one in zip(present, judged, strict=True):
                scores[i] = one
        return scores

    def unavailable(self) -> str | None:
        """Why this judge cannot work here, with the remedy; None if it can as far as is known.

        Checks files, settings, and that a model can be had; loads no weights.
        """
        return None

    def identity(self) -> dict[str, Any]:
        """What its scores depend on beside its name and options: digests of files; JSON-able."""
        return {}

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of its scores."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What it is, and its measured quality; JSON-able, without secrets."""

    @abstractmethod
    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        """Scores of at least one completion, after all checks."""

    def _missing(self) -> Scores:
        return dict.fromkeys(self.metrics)

    def _reference(self, item: Item, name: str) -> Any:
        """The item's reference called ``name``. Raises `InvalidInputError` if there is none."""
        if name not in item.reference:
            raise InvalidInputError(
                f"the judge {self.name!r} needs {name!r}, which the reference of item"
                f" {item.key!r} does not have; it has {', '.join(item.reference) or 'nothing'}."
            )
        return item.reference[name]
