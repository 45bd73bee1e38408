"""VADER (Hutto and Gilbert, ICWSM 2014): sentiment by a lexicon and rules, nothing trained."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores


class Vader(Judge):
    """``vader``, the compound score from -1 to 1, of the package vaderSentiment."""

    name: ClassVar[str] = "vader"
    metrics = ("vader",)
    blank: ClassVar[Mapping[str, float]] = {"vader": 0.0}

    def unavailable(self) -> str | None:
        if find_spec("vaderSentiment") is None:
            return "it needs vaderSentiment; install it with: pip install 'odesteer[bench]'."
        return None

    def about(self) -> dict[str, Any]:
        return {"kind": "lexicon", "what": "sentiment of a completion by VADER, -1 to 1"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [
            {"vader": float(self._analyzer.polarity_scores(text)["compound"])} for text in texts
        ]

    @cached_property
    def _analyzer(self) -> Any:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        return SentimentIntensityAnalyzer()
