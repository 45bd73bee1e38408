"""Exact judge of the terrarium's worlds, by their grammars."""

from collections.abc import Sequence
from typing import Any, ClassVar

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores


class TerrariumJudge(Judge):
    """The verdict of an item's world; exact, as its grammar generates everything that is valid.

    ``joint`` is 1 for a valid completion with the desired attribute, which is the positive side
    unless the reference has ``desired: false``; ``valid`` is 1 for one that the world's grammar
    generates, whatever its attribute; ``attribute`` is 1 for one with the desired attribute. The
    reference of a hard world has its ``exceptions``.
    """

    name: ClassVar[str] = "terrarium"
    metrics = ("joint", "attribute", "valid")
    is_exact = True

    def about(self) -> dict[str, Any]:
        return {"kind": "exact", "what": "the grammar that generates the terrarium's texts"}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        return [self._one(item, text) for item, text in zip(items, texts, strict=True)]

    def _one(self, item: Item, text: str) -> Scores:
        from odesteer.terrarium import hard_world, world

        name, exceptions = self._reference(item, "world"), item.reference.get("exceptions")
        each = world(name) if exceptions is None else hard_world(name, exceptions)
        desired = bool(item.reference.get("desired", True))
        verdict = each.judge(item.text, text)
        return {
            "joint": float(verdict.achieves(desired)),
            "attribute": float(verdict.attribute is desired),
            "valid": float(verdict.valid),
        }
