"""load_contrast and save_contrast: contrastive data from a file or the hub, and to JSONL."""

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from odesteer.data.contrast import ContrastData, Example
from odesteer.data.fields import Spelling, listed, python_argument
from odesteer.data.formats import SourceRow
from odesteer.data.hub import PREFIX, is_dataset_id, read_hub
from odesteer.data.readers import ONE_SIDE, READERS, TEXT_READERS, Reader
from odesteer.data.rows import OnBadRow, read_rows
from odesteer.data.transcripts import shared_opening
from odesteer.errors import DataError, InvalidInputError
from odesteer.files import write_file

PathLike = str | os.PathLike[str]


def load_contrast(
    source: PathLike | None = None,
    *,
    positive: PathLike | None = None,
    negative: PathLike | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    duplicates: OnBadRow = "drop",
    identical: OnBadRow = "error",
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> ContrastData:
    """Contrastive data from a file, two files, or a data set on the Hugging Face hub.

    Each row is ``{positive, negative}`` (texts, lists of texts or chats), ``{prompt, chosen,
    rejected}`` (strings or chats, the prompt in its own field or at the head of both sides: the
    messages of chats, or the turns of transcripts such as ``"Human: … Assistant: …"`` up to the
    last turn marker that both share), or ``{text, label}`` (transcripts are cut at their last turn
    marker) with label 1, true, ``"positive"``, ``"pos"`` or ``"yes"`` and 0, -1, false,
    ``"negative"``, ``"neg"`` or ``"no"``. All
    take an optional ``prompt`` (``""`` leaves transcripts whole) and an optional ``group``. Of
    messages only role and content are read, parts of text are joined. Examples of one group are
    never separated by a split; without the field, the group is the prompt, else the row of a pair,
    else the text of a labelled row.

    Args:
        source: a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file in UTF-8, or a
            data set ``owner/name`` (``hub:owner/name`` where a file of that name exists too).
        positive, negative: instead, a file for each side, whose texts belong to no pairs: a text a
            line (``.txt``), a JSON list of texts, or any of the formats above with the column
            ``text``, and ``prompt`` and ``group`` if wanted. Blank lines and texts are left out.
        columns: what the source calls the fields, where it calls them otherwise:
            ``{"text": "statement"}``. Columns that mean nothing here are not read, with an
            `UnusedColumnsWarning`.
        duplicates: ``"drop"`` rows that repeat an earlier one, with a `DuplicateRowsWarning` that
            counts them, or ``"error"``.
        identical: what to do with rows that have the same text on both sides: ``"error"``, or
            ``"drop"`` them with an `IdenticalSidesWarning`.

    Other args:
        format: the format of a file whose suffix does not tell it.
        name: configuration of a data set on the hub.
        split: its split, ``train`` if not given.
        revision: its revision.

    Raises `DataError` (file, row, field and what was found) and `MissingDependencyError`.
    """
    return read_contrast(
        source,
        positive=positive,
        negative=negative,
        format=format,
        columns=columns,
        duplicates=duplicates,
        identical=identical,
        name=name,
        split=split,
        revision=revision,
    )


def read_contrast(
    source: PathLike | None,
    *,
    positive: PathLike | None = None,
    negative: PathLike | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    duplicates: OnBadRow = "drop",
    identical: OnBadRow = "error",
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    spelled: Spelling = python_argument,
) -> ContrastData:
    """As `load_contrast`, with ``spelled`` to write the arguments that errors advise."""
    on_hub = {"name": name, "split": split, "revision": revision}
    given = [spelled(option, value) for option, value in on_hub.items() if value is not None]
    if (source is None) != (positive is not None and negative is not None) or (
        (positive is None) != (negative is None)
    ):
        raise InvalidInputError(
            "give one source with both sides, or two files,"
            f" {spelled('positive', 'a.txt')} and {spelled('negative', 'b.txt')}."
        )
    if source is None:
        sides = {"positive": Path(positive or ""), "negative": Path(negative or "")}
        label = " and ".join(str(path) for path in sides.values())
        if given:
            raise InvalidInputError(f"{', '.join(given)} is for data sets on the hub, not files.")
        rows = _read_sides(sides, format, spelled)
    elif _is_file(text := os.fspath(source)):
        if given:
            raise InvalidInputError(
                f"{', '.join(given)} is for data sets on the hub, but {text!r} is a file; leave it"
                f" out, or write {PREFIX}{text}."
            )
        rows = _read_file(Path(text), format, READERS, spelled)
        label = text
    else:
        if format is not None:
            raise InvalidInputError(
                f"{spelled('format', format)} is for files, but there is no file {text!r}, so it is"
                " taken for a data set on the hub."
            )
        label = text.removeprefix(PREFIX)
        rows = read_hub(label, name=name, split=split or "train", revision=revision)
    return read_rows(
        rows,
        label,
        columns=columns,
        duplicates=duplicates,
        identical=identical,
        spelled=spelled,
    )


def _is_file(source: str) -> bool:
    """Whether a source is a file, rather than a data set on the hub."""
    if source.startswith(PREFIX):
        return False
    return Path(source).exists() or bool(_format_of(Path(source))) or not is_dataset_id(source)


def save_contrast(data: ContrastData, path: str | os.PathLike[str]) -> None:
    """Write data as JSONL, such that `load_contrast` reads the same data (and digest) again.

    Pairs are written as ``{prompt, positive, negative, group}``, anything else as ``{prompt, text,
    label, group}``. Raises `DataError` for data that rows cannot express (an example that one
    side holds twice, or both sides hold outside of pairs) and for paths that cannot be written.
    """
    path = Path(path)
    rows = _as_pairs(data) or _as_labelled(data)
    try:
        again = read_rows(
            (SourceRow(f"row {i}", row) for i, row in enumerate(rows, start=1)),
            str(path),
            duplicates="error",
        )
    except DataError as error:
        raise DataError(f"{data!r} cannot be written as rows: {error}") from None
    if again != data:
        raise DataError(f"{data!r} cannot be written as rows: it would be read back otherwise.")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_file(path, text.encode(), DataError)


def _read_sides(
    sides: Mapping[str, Path], format: str | None, spelled: Spelling
) -> Iterator[SourceRow]:
    """The texts of a file for each side, as rows with labels."""
    for label, path in sides.items():
        for row in _read_file(path, format, TEXT_READERS, spelled):
            if "label" in row.fields:
                raise DataError(
                    f"{path}, {row.place}: found a 'label' in a file of {label} texts; give the"
                    " file alone, or leave the column out."
                )
            yield SourceRow(f"{row.place} of {path}", {**row.fields, "label": label})


def _read_file(
    path: Path, format: str | None, readers: Mapping[str, Reader], spelled: Spelling
) -> Iterator[SourceRow]:
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if _format_of(file))
        files = f"one of the files in it: {listed(inside)}" if inside else "a file"
        raise DataError(f"{path} is a folder; name {files}.")
    if not path.exists():
        raise DataError(f"there is no file {path}.{_near_files(path)}")
    known = format or path.suffix.lower().removeprefix(".")
    if known not in readers:
        by_name = ", or as format=..." if spelled is python_argument else ""
        hint = f" {ONE_SIDE}" if known in TEXT_READERS else ""
        raise DataError(
            f"{path}: format {format or path.suffix or 'without a suffix'!r} is not known; use one"
            f" of {', '.join(readers)} (as the suffix{by_name}).{hint}"
        )
    try:
        yield from readers[known](path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from None


def _format_of(path: Path) -> str | None:
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in READERS else None


def _near_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" There is no folder {folder} either."
    try:
        names = [file.name for file in folder.iterdir() if file.is_file()]
    except OSError:
        return ""
    like = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    like += sorted(name for name in names if _format_of(Path(name)) and name not in like)
    return f" Files near it: {listed(like[:5])}." if like else ""


def _as_pairs(data: ContrastData) -> list[dict[str, Any]] | None:
    """Rows of pairs, where the sides are pairs throughout; else None."""
    if data.groups_positive != data.groups_negative:
        return None
    rows = []
    for positive, negative, group in zip(
        data.positive, data.negative, data.groups_positive, strict=True
    ):
        if positive.prompt != negative.prompt:
            return None
        sides = {"positive": positive.response, "negative": negative.response}
        # Without a prompt, transcripts would be cut when they are read.
        whole = not positive.prompt and shared_opening(list(sides.values())) is not None
        prompt = {"prompt": ""} if whole else _prompt_of(positive)
        rows.append({**prompt, **sides, "group": group})
    return rows


def _as_labelled(data: ContrastData) -> list[dict[str, Any]]:
    return [
        {**_prompt_of_text(example), "text": example.response, "label": label, "group": group}
        for label, side, groups in (
            ("positive", data.positive, data.groups_positive),
            ("negative", data.negative, data.groups_negative),
        )
        for example, group in zip(side, groups, strict=True)
    ]


def _prompt_of_text(example: Example) -> dict[str, Any]:
    """The prompt, also an empty one where the text would be cut without it."""
    is_cut = not example.prompt and shared_opening([example.response]) is not None
    return {"prompt": ""} if is_cut else _prompt_of(example)


def _prompt_of(example: Example) -> dict[str, Any]:
    if isinstance(example.prompt, str):
        return {"prompt": example.prompt} if example.prompt else {}
    return {"prompt": [{"role": m.role, "content": m.content} for m in example.prompt]}
