"""Completions, or why there are none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.artifact import Steerer
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.evaluation.runner.plan import Row
from odesteer.evaluation.runner.writing import Written, write
from odesteer.models import SteeredModel

REFUSALS = (InvalidInputError, ConvergenceError)
"""What a method that cannot be fitted, or an amount that it cannot reach, ends in."""


@dataclass(frozen=True)
class Batch:
    """Rows that are written together.

    Attributes:
        steerers: of each row: what is fitted, None for baselines, or why it could not be.
    """

    rows: Sequence[Row]
    steerers: Sequence[Steerer | InvalidInputError | ConvergenceError | None]

    def of(self, numbers: Sequence[int]) -> "Batch":
        """Some of the rows."""
        return Batch([self.rows[i] for i in numbers], [self.steerers[i] for i in numbers])


Elsewhere = Callable[[Sequence[Batch]], Iterator[tuple[list[Written], float]]]
"""`attempt` for many batches in other processes: the completions of each, in order, and the
seconds that they took."""


def attempt(lm: SteeredModel, batch: Batch) -> list[Written]:
    """The completions of a batch. A refusal is a result too, and must not end a run of all the
    others: rows that it stands in the way of are written without the row that it is of."""
    try:
        steerers: list[Steerer | None] = []
        for steerer in batch.steerers:
            if isinstance(steerer, REFUSALS):
                raise steerer
            steerers.append(steerer)
        return write(lm, batch.rows, steerers)
    except REFUSALS as error:
        parts: dict[tuple[Any, ...], list[int]] = {}
        for i, row in enumerate(batch.rows):
            at = (row.contender.name, row.cell, row.fold.name, row.seed)
            parts.setdefault(at, []).append(i)
        if len(parts) == 1:
            if batch.rows[0].cell is None:
                raise
            return [{"failed": str(error)} for _ in batch.rows]
    found: dict[int, Written] = {}
    for part in parts.values():
        found.update(zip(part, attempt(lm, batch.of(part)), strict=True))
    return [found[i] for i in range(len(batch.rows))]
