"""Base class of judges: scores for completions, None for what a judge cannot score."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
        lower_is_better: those of its metrics of which less is better.
    """

    name: ClassVar[str]
    lower_is_better: frozenset[str] = frozenset()

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
        return self._judge(items, texts) if items else []

    def unavailable(self) -> str | None:
        """Why this judge cannot work here, with the remedy; None if it can as far as is known.

        Checks files and settings only: a model that has to be downloaded may still fail.
        """
        return None

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
