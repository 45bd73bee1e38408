"""Judge of form: blank texts, refusals, and repetition, which judges of content may reward."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.metrics import repetition

_REFUSAL = re.compile(
    r"\b(i('m| am) (sorry|unable|not able)|i (can('t|not)|won't|will not|must decline)"
    r"|as an ai|i have no comment|i apologi[sz]e)\b",
    re.IGNORECASE,
)


class Form(Judge):
    """``blank`` and ``refusal``, 1 or 0, and ``repeated``, the share of repeated words (n-grams).

    A refusal is one of a few English phrases ("I'm sorry", "I cannot", "as an AI" …).
    """

    name: ClassVar[str] = "form"
    metrics = ("blank", "refusal", "repeated")
    lower_is_better = frozenset(metrics)
    is_exact: ClassVar[bool] = True

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "blank texts, phrases of refusal, repetition"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [
            {
                "blank": float(not text.strip()),
                "refusal": float(bool(_REFUSAL.search(text.replace("’", "'")))),
                "repeated": repetition(text) if text.strip() else 0.0,
            }
            for text in texts
        ]
