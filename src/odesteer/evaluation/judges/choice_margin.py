"""Judge of choices: log-odds, probability and accuracy of the wanted ones, from likelihoods."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.judges.multiple_choice import choices_and_labels, log_likelihoods_in


class ChoiceMargin(Judge):
    """``margin``, log-odds of the wanted choices against the others; ``probability``; ``accuracy``.

    The *text* of an item is the log-likelihood of each choice, as JSON, and the reference is that
    of the judge `multiple-choice`. Unlike a probability, log-odds do not flatten where a model is
    sure. ``accuracy`` is whether the likeliest choice is a wanted one.
    """

    name: ClassVar[str] = "choice-margin"
    metrics = ("margin", "probability", "accuracy")
    is_exact: ClassVar[bool] = True

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "log-odds of the wanted choices under the judged model"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [self._one(item, text) for item, text in zip(items, texts, strict=True)]

    def _one(self, item: Item, text: str) -> Scores:
        choices, labels = choices_and_labels(item)["mc2"]
        totals = log_likelihoods_in(text)
        if not all(choice in totals for choice in choices):
            return self._missing()
        sides: dict[bool, list[float]] = {True: [], False: []}
        for choice, label in zip(choices, labels, strict=True):
            sides[bool(label)].append(totals[choice])
        if not sides[True] or not sides[False]:
            return self._missing()
        margin = _log_sum(sides[True]) - _log_sum(sides[False])
        return {
            "margin": margin,
            "probability": 0.5 * (1 + math.tanh(margin / 2)),
            "accuracy": float(max(sides[True]) > max(sides[False])),
        }


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))
