"""Diversity (Dist-n) and repetition of texts, from n-grams of words."""

from collections.abc import Iterable

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case, separated by white space."""
    return tuple(text.lower().split())


def n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of ``n`` words, in order."""
    if not is_integer(n, 1):
        raise InvalidInputError(f"n is {n!r}; an n-gram has a whole number of words, 1 or more.")
    split = words(text)
    return [split[i : i + n] for i in range(len(split) - n + 1)]


def distinct(text: str, n: int) -> float | None:
    """Dist-n of one text: distinct n-grams by all, 0 to 1; None for fewer than ``n`` words.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models".
    """
    return distinct_in_all([text], n)


def distinct_in_all(texts: Iterable[str], n: int) -> float | None:
    """Dist-n over a whole collection, as papers print it.

    It falls with the number of texts, so it compares collections of one size only. No n-gram
    spans two texts.
    """
    found = [gram for text in texts for gram in n_grams(text, n)]
    return len(set(found)) / len(found) if found else None


def repetition(text: str, n: int = 3) -> float:
    """Share of the n-grams of words that occurred before in the same text, 0 to 1.

    `seq-rep-n` of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training". A
    text of fewer than ``n`` words repeats nothing.
    """
    found = n_grams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0
