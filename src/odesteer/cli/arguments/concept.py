"""Concepts on the command line, and the report of the pairs that were written for one."""

from typing import TYPE_CHECKING

from odesteer.cli.errors import checking_usage
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.concepts import Concept, ConceptPairs
    from odesteer.models import SteeredModel


def read_concept(text: str) -> "Concept":
    """The concept in ``polite:rude``. Raises `UsageError` for other text."""
    from odesteer.concepts import Concept

    with checking_usage():
        return Concept.parse(text)


def has_chats(lm: "SteeredModel") -> bool:
    """Whether a model takes chats."""
    return bool(getattr(lm.tokenizer, "chat_template", None))


def report_pairs(found: "ConceptPairs", screen: Screen) -> dict[str, object]:
    """Note how many pairs were kept and why others were not; the same as plain data."""
    dropped = ", ".join(f"{n} {reason}" for reason, n in found.dropped.items())
    reasons = f"; dropped: {dropped}" if dropped else ""
    screen.note(f"{len(found.rows)} of {found.n_asked} pairs kept{reasons}")
    if 2 * len(found.rows) < found.n_asked:
        screen.note(
            "fewer than half of the answers differ as they should: this model hardly writes both"
            " sides. Read the pairs before you trust a steerer of them; a larger model or an"
            " endpoint (odesteer pairs --endpoint) writes better ones."
        )
    return {"kept": len(found.rows), "asked": found.n_asked, "dropped": dict(found.dropped)}
