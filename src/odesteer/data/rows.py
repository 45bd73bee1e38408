"""Rows to ContrastData: consistency checks, duplicates, identical sides, groups."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Literal

from odesteer.data.contrast import ContrastData, Example
from odesteer.data.fields import Spelling, listed, python_argument
from odesteer.data.formats import ACCEPTED, LABELLED, ParsedRow, RowParser, SourceRow
from odesteer.errors import DataError, InvalidInputError
from odesteer.untrusted import brief

OnBadRow = Literal["drop", "error"]


class DataWarning(UserWarning):
    """Something in a data source was not used."""


class DuplicateRowsWarning(DataWarning):
    """Rows that repeat an earlier row were dropped; the message counts them."""


class IdenticalSidesWarning(DataWarning):
    """Rows with the same text on both sides were dropped; the message counts them."""


class UnusedColumnsWarning(DataWarning):
    """Columns without a meaning here were not read; the message names them."""


def read_rows(
    rows: Iterable[SourceRow],
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    duplicates: OnBadRow = "drop",
    identical: OnBadRow = "error",
    spelled: Spelling = python_argument,
) -> ContrastData:
    """Contrastive data from rows; ``source`` names them in errors.

    ``spelled`` writes arguments in errors. The others are those of `load_contrast`.
    """
    for option, value in (("duplicates", duplicates), ("identical", identical)):
        if value not in ("drop", "error"):
            raise InvalidInputError(f"{option} must be 'drop' or 'error', not {value!r}.")
    reader = RowParser(source, dict(columns or {}), spelled)
    parsed = [row for row in map(reader.read, rows) if row is not None]
    empty = reader.without_response
    if empty and not parsed:
        raise DataError(f"{source}: no row has a response behind the turns that both sides share.")
    if not parsed:
        raise DataError(f"{source} holds no rows; a row is {ACCEPTED}.")
    for row in parsed:
        _check_alike(source, parsed[0], row)
    parsed = _split_lists(parsed)
    kept, n_identical = _without_identical(source, parsed, identical, spelled)
    kept, repeats = _without_duplicates(source, kept, duplicates, spelled)
    data = _assemble(source, kept)
    notices: list[tuple[type[DataWarning], str]] = []
    if reader.unused:
        notices.append((UnusedColumnsWarning, f"did not read columns {listed(reader.unused)}."))
    if empty:
        message = (
            f"dropped {len(empty)} of {reader.n_read} rows where a side has no response"
            f" ({empty[0]})."
        )
        notices.append((DataWarning, message))
    if n_identical:
        message = f"dropped {n_identical} of {len(parsed)} rows with the same text on both sides."
        notices.append((IdenticalSidesWarning, message))
    if repeats:
        message = (
            f"dropped {len(repeats)} of {len(parsed)} rows that repeat an earlier row"
            f" ({repeats[0]})."
        )
        notices.append((DuplicateRowsWarning, message))
    for category, message in notices:
        # Four frames up is the caller of load_contrast.
        warnings.warn(f"{source}: {message}", category, stacklevel=4)
    return data


def _check_alike(source: str, first: ParsedRow, row: ParsedRow) -> None:
    # A difference of kind between rows would be learned as if it were the contrast.
    for found, expected in zip(row.kind, first.kind, strict=True):
        if found != expected:
            raise DataError(
                f"{source}, {row.place}: the row is {found}, but {first.place} is {expected}; all"
                " rows must be alike."
            )


def _split_lists(rows: list[ParsedRow]) -> list[ParsedRow]:
    """Split a single row with lists on both sides into labelled rows, one for each text."""
    if len(rows) > 1 or rows[0].group is not None or len(rows[0].examples) <= 2:
        return rows
    texts = [("positive", i, example) for i, example in enumerate(rows[0].positive)]
    texts += [("negative", i, example) for i, example in enumerate(rows[0].negative)]
    return [
        ParsedRow(
            index=index,
            place=f"{side}[{i}]",
            form=LABELLED,
            positive=(example,) if side == "positive" else (),
            negative=(example,) if side == "negative" else (),
            group=example.response,
            group_is_given=False,
        )
        for index, (side, i, example) in enumerate(texts, start=1)
    ]


def _without_identical(
    source: str, rows: list[ParsedRow], policy: OnBadRow, spelled: Spelling
) -> tuple[list[ParsedRow], int]:
    """Drop or refuse rows with one example on both sides: the rows left, the number dropped."""
    clashing: set[Example] = set()
    earlier: dict[Example, ParsedRow] = {}
    kept = []
    for row in rows:
        if row.form != LABELLED:
            both = next((e for e in row.positive if e in row.negative), None)
            message = "" if both is None else f"{brief(both.response)} is on both sides"
        else:
            first = earlier.setdefault(row.examples[0], row)
            clash = bool(first.positive) != bool(row.positive)
            clashing.update(row.examples if clash else ())
            text = brief(row.examples[0].response)
            message = f"{text} has the opposite label in {first.place}" if clash else ""
        if message and policy == "error":
            raise DataError(
                f"{source}, {row.place}: {message}; remove it, or everything like it with"
                f" {spelled('identical', 'drop')}."
            )
        if not message:
            kept.append(row)
    kept = [row for row in kept if row.form != LABELLED or row.examples[0] not in clashing]
    return kept, len(rows) - len(kept)


def _without_duplicates(
    source: str, rows: list[ParsedRow], policy: OnBadRow, spelled: Spelling
) -> tuple[list[ParsedRow], list[str]]:
    """Drop or refuse rows that repeat an earlier one: the rows left, a text for each repeat."""
    first: dict[tuple[tuple[Example, ...], tuple[Example, ...]], ParsedRow] = {}
    repeats = []
    for row in rows:
        earlier = first.setdefault((row.positive, row.negative), row)
        if earlier is not row:
            repeats.append(f"{row.place} repeats {earlier.place}")
    if repeats and policy == "error":
        raise DataError(
            f"{source}: {repeats[0]}; remove it, or all repeated rows with"
            f" {spelled('duplicates', 'drop')}."
        )
    return list(first.values()), repeats


def _assemble(source: str, rows: list[ParsedRow]) -> ContrastData:
    for side in ("positive", "negative"):
        if not any(getattr(row, side) for row in rows):
            raise DataError(
                f"{source}: none of {len(rows)} usable rows has a {side} example; both sides need"
                " at least one."
            )
    positive = [(example, row) for row in rows for example in row.positive]
    negative = [(example, row) for row in rows for example in row.negative]
    return ContrastData(
        tuple(example for example, _ in positive),
        tuple(example for example, _ in negative),
        tuple(row.group or f"row {row.index}" for _, row in positive),
        tuple(row.group or f"row {row.index}" for _, row in negative),
    )
