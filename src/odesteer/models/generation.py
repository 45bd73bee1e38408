"""What a steered model has written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.models.detokenizing import pieces
from odesteer.models.receipt import Receipt


@dataclass(frozen=True)
class Generation:
    """A generated text, and what steering did to each of its tokens.

    Attributes:
        text: what follows the prompt.
        tokens: the text that each generated token completes; they add up to ``text``.
        before: for each token the log-density ratio, nats, of the activation that it was chosen
            from, before it was moved; None where that activation was not steered or the method
            has no barrier.
        after: the same after it was moved.
        capped: number of these activations that were to reach a level and ran to the cap.
        unusable: number of these activations that were zero, NaN or infinite and left alone.
    """

    text: str
    tokens: list[str]
    before: list[float | None]
    after: list[float | None]
    capped: int
    unusable: int


def generated_ids(ids: Sequence[int], stops: Sequence[int], pad: int) -> list[int]:
    """The tokens of one row up to the first that stops it, without padding at the end."""
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    while end == len(ids) and end and ids[end - 1] == pad:
        ids = ids[:-1]
        end -= 1
    return list(ids[:end])


def generations(
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Sequence[int]],
    receipt: Receipt,
    prompt_width: int,
) -> list[Generation]:
    """One for each row; column ``prompt_width - 1`` is where its first token was chosen."""
    columns = (receipt.row, receipt.column, receipt.before, receipt.after)
    flags = (receipt.capped, receipt.usable)
    entries: dict[tuple[int, int], tuple[float, float, bool, bool]] = {}
    for row, column, *entry in zip(*(c.tolist() for c in (*columns, *flags)), strict=True):
        # Without a cache the same column is moved again in later passes, with the same result.
        entries.setdefault((row, column - prompt_width + 1), tuple(entry))
    done = []
    for row, ids in enumerate(rows):
        tokens = pieces(tokenizer, prompts[row], ids)
        found = [entries.get((row, i)) for i in range(len(ids))]
        done.append(
            Generation(
                text="".join(tokens),
                tokens=tokens,
                before=[None if entry is None else _known(entry[0]) for entry in found],
                after=[None if entry is None else _known(entry[1]) for entry in found],
                capped=sum(entry is not None and entry[2] for entry in found),
                unusable=sum(entry is not None and not entry[3] for entry in found),
            )
        )
    return done


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
