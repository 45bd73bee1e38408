"""`Generation`: a generated text with what steering did to each token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from odesteer.models.generation.streaming import token_texts
from odesteer.models.steering.receipts import GateDecisions, Receipt


@dataclass(frozen=True)
class Generation:
    """A generated text, and what steering did to each of its tokens.

    Attributes:
        text: what follows the prompt.
        tokens: the text that each generated token completes; they add up to ``text``.
        before: for each token the log-density ratio, nats, of the activation that it was chosen
            from, before it was moved; None where that activation was not steered or the method
            has no barrier. Of a set of steerers, at the last site that moved it.
        after: the same after it was moved.
        capped: for how many tokens one of these activations was to reach a level and ran to the
            cap.
        unusable: for how many one was zero, NaN or infinite and left alone.
        conditions: for each gate of the row's steerers the log-density ratio, nats, of its
            condition at the prompt.
        gates: for each of them whether it was open.
    """

    text: str
    tokens: list[str]
    before: list[float | None]
    after: list[float | None]
    capped: int
    unusable: int
    conditions: list[float] = field(default_factory=list)
    gates: list[bool] = field(default_factory=list)


def generated_ids(ids: Sequence[int], stops: Sequence[int], pad: int) -> list[int]:
    """The tokens of one row before its first stop token, without padding at the end."""
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    while end == len(ids) and end and ids[end - 1] == pad:
        ids = ids[:-1]
        end -= 1
    return list(ids[:end])


@dataclass(frozen=True)
class _PositionRecord:
    """The receipt of one position in the first pass that moved it, over all sites."""

    forward: int
    before: float
    after: float
    capped: bool
    usable: bool


def generations(
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Sequence[int]],
    receipt: Receipt,
    prompt_width: int,
    gates: Sequence[Sequence[int]],
) -> list[Generation]:
    """One for each row; column ``prompt_width - 1`` is where its first token was chosen.

    ``gates`` are the numbers of each row's gates in the receipt.
    """
    records = _records(receipt)
    decisions = _first_decisions(receipt.decisions)
    done = []
    for row, ids in enumerate(rows):
        tokens = token_texts(tokenizer, prompts[row], ids)
        found = [records.get((row, prompt_width - 1 + i)) for i in range(len(ids))]
        decided = [decisions[row, gate] for gate in gates[row]]
        done.append(
            Generation(
                text="".join(tokens),
                tokens=tokens,
                before=[None if entry is None else _none_if_nan(entry.before) for entry in found],
                after=[None if entry is None else _none_if_nan(entry.after) for entry in found],
                capped=sum(entry is not None and entry.capped for entry in found),
                unusable=sum(entry is not None and not entry.usable for entry in found),
                conditions=[value for value, _ in decided],
                gates=[is_open for _, is_open in decided],
            )
        )
    return done


def _records(receipt: Receipt) -> dict[tuple[int, int], _PositionRecord]:
    """Records by row and column."""
    records: dict[tuple[int, int], _PositionRecord] = {}
    columns = (receipt.before, receipt.after, receipt.capped, receipt.usable)
    positions = zip(*(c.tolist() for c in (receipt.row, receipt.column)), strict=True)
    passes = receipt.forward.tolist()
    figures = zip(*(c.tolist() for c in columns), strict=True)
    for position, forward, (before, after, capped, usable) in zip(
        positions, passes, figures, strict=True
    ):
        known = records.get(position)
        if known is None:
            records[position] = _PositionRecord(forward, before, after, capped, usable)
        # Without a cache the same column is moved again in later passes, with the same result.
        elif known.forward == forward:
            records[position] = _PositionRecord(
                forward, before, after, known.capped or capped, known.usable and usable
            )
    return records


def _first_decisions(decisions: GateDecisions) -> dict[tuple[int, int], tuple[float, bool]]:
    """Value and decision by row and gate, of the first decision."""
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    columns = (decisions.row, decisions.gate, decisions.value, decisions.is_open)
    for row, gate, value, is_open in zip(*(c.tolist() for c in columns), strict=True):
        found.setdefault((row, gate), (value, is_open))
    return found


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
