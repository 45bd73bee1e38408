"""How much a text repeats itself."""

from odesteer.evaluation.metrics.diversity import n_grams


def repetition(text: str, n: int = 3) -> float:
    """Share of the n-grams of words that occurred before in the same text, 0 to 1.

    `seq-rep-n` of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training". A
    text of fewer than ``n`` words repeats nothing.
    """
    found = n_grams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0
