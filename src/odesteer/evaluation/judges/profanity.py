"""Third-party judge of profanity: the linear model of the package alt-profanity-check."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores


class Profanity(Judge):
    """``profanity``, a probability, from a linear model of words that others trained.

    The package unpickles two joblib files of its own when it is imported, which can run any code:
    install it only if you trust it.
    """

    name: ClassVar[str] = "profanity"
    metrics = ("profanity",)
    lower_is_better = frozenset(metrics)
    blank: ClassVar[Mapping[str, float]] = {"profanity": 1.0}

    def unavailable(self) -> str | None:
        if find_spec("profanity_check") is None:
            return (
                "it needs alt-profanity-check, whose model is unpickled; if you trust it, install"
                " it with: pip install 'odesteer[profanity]'."
            )
        return None

    def about(self) -> dict[str, Any]:
        return {
            "kind": "third party",
            "what": "the probability that a completion is profane, by its words",
            "model": "alt-profanity-check, a linear support vector machine",
        }

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        from profanity_check import predict_prob

        return [{"profanity": float(value)} for value in predict_prob(list(texts))]
