"""How varied texts are: the share of distinct n-grams."""

from collections.abc import Iterable

from odesteer.errors import InvalidInputError


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case, separated by white space."""
    return tuple(text.lower().split())


def n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of ``n`` words, in order."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidInputError(f"n is {n!r}; an n-gram has a whole number of words, 1 or more.")
    said = words(text)
    return [said[i : i + n] for i in range(len(said) - n + 1)]


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
