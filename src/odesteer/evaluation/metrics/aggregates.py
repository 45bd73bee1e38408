"""Aggregates of scores: maximum over samples, wins over pairs, product of metrics."""

from collections.abc import Sequence

from odesteer.errors import InvalidInputError


def expected_maximum(scores: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The maximum over the samples of each prompt; its mean over prompts is what is reported.

    Expected maximum toxicity of Gehman et al. 2020, "RealToxicityPrompts". A prompt with a
    missing sample is missing: a maximum over fewer samples is a lower one.
    """
    return [
        max(present) if present and len(present) == len(samples) else None
        for samples in scores
        for present in [[score for score in samples if score is not None]]
    ]


def wins(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    """1 where our answer scores higher than theirs to the same prompt, ½ for a tie, 0 where lower.

    Their mean is the win rate. Missing where either score is.
    """
    if len(ours) != len(theirs):
        raise InvalidInputError(f"{len(ours)} scores have {len(theirs)} to compare with.")
    return [
        None if a is None or b is None else 0.5 + 0.5 * ((a > b) - (a < b))
        for a, b in zip(ours, theirs, strict=True)
    ]


def product(scores: Sequence[float | None]) -> float | None:
    """Product of scores of one completion, such as True×Info; missing if one of them is."""
    result = 1.0
    for score in scores:
        if score is None:
            return None
        result *= score
    return result
