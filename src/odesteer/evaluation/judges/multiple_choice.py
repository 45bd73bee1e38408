"""Judge of multiple choice: MC1, MC2 and MC3 from the log-likelihoods of the choices."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.metrics.multiple_choice import mc1, mc2, mc3
from odesteer.untrusted import is_number, parse_json


class MultipleChoice(Judge):
    """MC1, MC2 and MC3 of the model that is being judged.

    The *text* of an item is the log-likelihood of each choice, as JSON. They are stored with the
    other raw output, so that they can be judged again without the model.

    The reference has ``mc1`` and ``mc2``, each with ``choices`` and ``labels`` (1 true, 0 false),
    or ``choices`` and ``labels`` of its own, which then count for both. MC3 is of ``mc2``.
    """

    name: ClassVar[str] = "multiple-choice"
    metrics = ("mc1", "mc2", "mc3")
    is_exact = True

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "log-likelihoods of the answers under the judged model"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [self._one(item, text) for item, text in zip(items, texts, strict=True)]

    def _one(self, item: Item, text: str) -> Scores:
        parts = choices_and_labels(item)
        totals = log_likelihoods_in(text)
        scores = self._missing()
        for metric, part, score in (("mc1", "mc1", mc1), ("mc2", "mc2", mc2), ("mc3", "mc2", mc3)):
            choices, labels = parts[part]
            if all(choice in totals for choice in choices):
                scores[metric] = score([totals[choice] for choice in choices], labels)
        return scores


def choices_and_labels(item: Item) -> dict[str, tuple[list[str], list[int]]]:
    """The choices of ``mc1`` and of ``mc2`` with their labels."""
    parts = {name: item.reference.get(name, item.reference) for name in ("mc1", "mc2")}
    for name, part in parts.items():
        choices, labels = part.get("choices"), part.get("labels")
        if not choices or labels is None or len(choices) != len(labels):
            raise InvalidInputError(
                f"the {name} of item {item.key!r} needs choices and as many labels; it has"
                f" {len(choices or ())} and {len(labels or ())}."
            )
    return {name: (list(part["choices"]), list(part["labels"])) for name, part in parts.items()}


def log_likelihoods_in(text: str) -> dict[str, float]:
    """The finite log-likelihoods in a JSON text; empty for any other text."""
    try:
        read = parse_json(text, "log-likelihoods")
    except InvalidInputError:
        return {}
    if not isinstance(read, Mapping):
        return {}
    return {choice: float(value) for choice, value in read.items() if is_number(value)}
