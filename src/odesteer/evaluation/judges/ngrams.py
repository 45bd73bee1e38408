"""Judges that count n-grams of words: diversity (Dist-n) and repetition."""

from collections.abc import Sequence
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.metrics.ngrams import distinct, repetition

_SIZES = (1, 2, 3)


class Diversity(Judge):
    """Share of distinct n-grams within each completion; missing for fewer than n words.

    Dist-n over all completions of a run is `odesteer.evaluation.metrics.distinct_in_all`.
    """

    name: ClassVar[str] = "diversity"
    metrics = tuple(f"dist-{n}" for n in _SIZES)

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "distinct n-grams of words by all, within a completion"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [{f"dist-{n}": distinct(text, n) for n in _SIZES} for text in texts]


class Repetition(Judge):
    """Share of the trigrams of words that occurred before in the same completion."""

    name: ClassVar[str] = "repetition"
    metrics = ("repetition",)
    lower_is_better = frozenset(metrics)

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "repeated trigrams of words by all, in a completion"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [{"repetition": repetition(text)} for text in texts]
