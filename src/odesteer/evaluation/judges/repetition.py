"""How much a completion repeats itself."""

from collections.abc import Sequence
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.metrics.repetition import repetition


class Repetition(Judge):
    """Share of the trigrams of words that occurred before in the same completion."""

    name: ClassVar[str] = "repetition"
    metrics = ("repetition",)
    lower_is_better = frozenset(metrics)

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "repeated trigrams of words by all, in a completion"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [{"repetition": repetition(text)} for text in texts]
