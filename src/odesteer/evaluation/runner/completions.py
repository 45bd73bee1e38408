"""Generating the completions of a batch, or scoring its choices; failures are results too."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from odesteer.artifact import Steerer
from odesteer.data import Example
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.plan import Row
from odesteer.evaluation.runner.prompt_only import asked
from odesteer.evaluation.runner.sampling import arguments, seed_of
from odesteer.models import Generation, SteeredModel

Written = dict[str, Any]
"""What is kept of a completion, JSON-able."""


def write(
    lm: SteeredModel, rows: Sequence[Row], steerers: Sequence[Steerer | None]
) -> list[Written]:
    """One completion (or the likelihoods of one item's choices) for each row, in order.

    All rows are of one task, and steered by one quantity. This is the only place where a
    benchmark has a model write.
    """
    task = rows[0].task
    if task.kind == "choice":
        return _weigh(lm, rows, steerers)
    fits = partial(_fits, lm, task.max_new_tokens)
    items = [
        asked(task, row.fold, row.item, row.seed, fits)
        if row.contender.kind == "prompt"
        else row.item
        for row in rows
    ]
    seeds = [seed_of(task.name, row.item.key, row.seed, row.sample) for row in rows]
    options = arguments(task.decoding, seeds, task.max_new_tokens)
    stops = _stop_tokens(lm, task.stop)
    if stops:
        options["eos_token_id"] = stops
    steered = any(steerer is not None for steerer in steerers)
    texts = lm.generate(
        [item.prompt for item in items],
        list(steerers) if steered else None,
        max_new_tokens=task.max_new_tokens,
        seed=0,
        receipt=True,
        batch_size=len(rows),
        **_how_much(rows),
        **options,
    )
    return [_kept(task.cut(text.text), text) for text in texts]


def _how_much(rows: Sequence[Row]) -> dict[str, Any]:
    cells = [row.cell for row in rows]
    quantities = {cell.amount.quantity for cell in cells if cell is not None}
    if not quantities:
        return {}
    if len(quantities) > 1:
        raise InvalidInputError(f"a batch steers by one quantity, not by {quantities}.")
    return {quantities.pop(): [None if cell is None else cell.value for cell in cells]}


def _fits(lm: SteeredModel, max_new_tokens: int, item: Item) -> bool:
    """Whether the model's context has room for a prompt and what is to follow."""
    try:
        length = len(lm.encode(item.prompt))
    except InvalidInputError:
        return False
    return lm.context is None or length + max_new_tokens <= lm.context


def _kept(text: str, generation: Generation) -> Written:
    moved = [
        (before, after)
        for before, after in zip(generation.before, generation.after, strict=True)
        if before is not None and after is not None
    ]
    kept: Written = {
        "text": text,
        "tokens": len(generation.tokens),
        "capped": generation.capped,
        "unusable": generation.unusable,
    }
    if moved:
        # Nine digits: what differs beyond them is rounding.
        kept["before"] = _short(math.fsum(before for before, _ in moved) / len(moved))
        kept["after"] = _short(math.fsum(after for _, after in moved) / len(moved))
    return kept


def _short(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _stop_tokens(lm: SteeredModel, stops: Sequence[str]) -> list[int]:
    """Tokens that end a completion: the model's own, and stop texts that are one token."""
    found: list[int] = []
    for stop in stops:
        ids = lm.tokenizer(stop, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            found.append(int(ids[0]))
    own = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    own = lm.tokenizer.eos_token_id if own is None else own
    if found and own is not None:
        found += [int(token) for token in (own if isinstance(own, (list, tuple)) else [own])]
    return list(dict.fromkeys(found))


def _weigh(
    lm: SteeredModel, rows: Sequence[Row], steerers: Sequence[Steerer | None]
) -> list[Written]:
    """Log-likelihoods of the choices of each row's item, and what its prompt lost for them."""
    from odesteer.evaluation.metrics.likelihood import log_likelihoods

    # One steerer and one amount at a time is all that likelihoods take.
    groups: dict[tuple[int, Any], list[int]] = {}
    for i, (row, steerer) in enumerate(zip(rows, steerers, strict=True)):
        groups.setdefault((id(steerer), row.cell), []).append(i)
    found: dict[int, Written] = {}
    for (_, cell), mine in groups.items():
        choices = {i: _choices(rows[i]) for i in mine}
        examples = [Example(rows[i].item.prompt, text) for i in mine for text in choices[i]]
        amount = None if cell is None else cell.amount
        scored = log_likelihoods(lm, examples, steerers[mine[0]], amount, truncate=True)
        of_item = iter(scored)
        for i in mine:
            each = {text: next(of_item) for text in choices[i]}
            found[i] = {"likelihoods": {text: _short(one.total) for text, one in each.items()}}
            lost = max(one.n_lost for one in each.values())
            if lost:
                found[i]["truncated"] = lost
    return [found[i] for i in range(len(rows))]


def _choices(row: Row) -> list[str]:
    """All choices of an item, those of several questions on them once."""
    reference = row.item.reference
    return list(dict.fromkeys(c for kind in ("mc1", "mc2") for c in reference[kind]["choices"]))


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
