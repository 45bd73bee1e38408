"""File readers for rows: JSONL, JSON, CSV, TSV, Parquet, and texts a line."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from odesteer.data.fields import listed
from odesteer.data.formats import SourceRow
from odesteer.errors import DataError, MissingDependencyError
from odesteer.untrusted import brief, unique_keys

# A line is read up to this limit and no further, so that a broken file cannot fill the memory.
MAX_LINE_BYTES = 16_000_000
# A JSON file cannot be read in parts.
MAX_JSON_BYTES = 512_000_000

ONE_SIDE = "Texts alone are one side; name a file for each side, positive and negative."

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text_lines(path: Path) -> Iterator[SourceRow]:
    """A text a line; blank lines are skipped."""
    with path.open("rb") as file:
        for number, line in _lines(path, file):
            if line.strip():
                yield SourceRow(f"line {number}", {"text": line.rstrip("\r\n")})


def read_json_lines(path: Path, *, texts: bool = False) -> Iterator[SourceRow]:
    """A JSON object a line, with ``texts`` also a string; blank lines are skipped."""
    with path.open("rb") as file:
        for number, line in _lines(path, file):
            if not line.strip():
                continue
            values = list(_json_values(path, line.rstrip("\r\n"), number, texts))
            if len(values) != 1:
                raise DataError(
                    f"{path}, line {number}: {len(values)} rows on one line; write one object a"
                    " line."
                )
            yield values[0]


def read_json(path: Path, *, texts: bool = False) -> Iterator[SourceRow]:
    """A JSON array of objects, one object, or objects in sequence; with ``texts`` also strings."""
    with path.open("rb") as file:
        too_long = os.fstat(file.fileno()).st_size > MAX_JSON_BYTES
        raw = b"" if too_long else file.read(MAX_JSON_BYTES + 1)
    if too_long or len(raw) > MAX_JSON_BYTES:
        raise DataError(
            f"{path} has more than {MAX_JSON_BYTES:,} bytes, the limit for a JSON file; write one"
            " object a line and name it .jsonl."
        )
    yield from _json_values(path, _decoded(path, raw, 0), 1, texts)


def read_csv(path: Path, delimiter: str = ",") -> Iterator[SourceRow]:
    """A table with a header line, fields separated by ``delimiter`` and quoted by ``"``."""
    with path.open("rb") as file:
        reader = csv.reader(
            (line for _, line in _lines(path, file)), delimiter=delimiter, strict=True
        )
        header: list[str] = []
        while True:
            started = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{path}, line {started}: not a well-formed row: {error}. Quote fields that"
                    ' hold quotes or line ends, and double the quotes in them; or use ".jsonl".'
                ) from None
            if record is None:
                return
            if not record:
                continue
            if not header:
                header = _header(path, record, delimiter)
                continue
            if len(record) != len(header):
                raise DataError(
                    f"{path}, line {started}: {len(record)} fields, but the header has"
                    f" {len(header)} ({listed(header)}); found {brief(record)}."
                )
            yield SourceRow(f"line {started}", dict(zip(header, record, strict=True)))


def read_tsv(path: Path) -> Iterator[SourceRow]:
    """As `read_csv`, with tabs."""
    return read_csv(path, "\t")


def read_parquet(path: Path) -> Iterator[SourceRow]:
    """A Parquet table. Raises `MissingDependencyError` without pyarrow."""
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError(
            f"reading {path} needs pyarrow; install it with: pip install 'odesteer[hub]'"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield SourceRow(f"row {number}", fields)
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}, after row {number}: not a readable Parquet file: {error}"
        ) from None


Reader = Callable[[Path], Iterable[SourceRow]]

READERS: dict[str, Reader] = {
    "jsonl": read_json_lines,
    "ndjson": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
}

# For files that hold one side.
TEXT_READERS: dict[str, Reader] = {
    "txt": read_text_lines,
    **READERS,
    "jsonl": partial(read_json_lines, texts=True),
    "ndjson": partial(read_json_lines, texts=True),
    "json": partial(read_json, texts=True),
}


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from one, each at most `MAX_LINE_BYTES` long."""
    offset = number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{path}, line {number}: the line is longer than {MAX_LINE_BYTES:,} bytes, the"
                " limit for one row; is this the right file?"
            )
        yield number, _decoded(path, raw, offset, number)
        offset += len(raw)


def _decoded(path: Path, raw: bytes, offset: int, number: int | None = None) -> str:
    if offset == 0:
        if raw.startswith(_UTF16_MARKS):
            raise DataError(f"{path} is in UTF-16; save it in UTF-8.")
        # A byte order mark is not part of the text.
        skipped = len(_UTF8_MARK) if raw.startswith(_UTF8_MARK) else 0
        raw, offset = raw[skipped:], skipped
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = (raw.count(b"\n", 0, error.start) + 1) if number is None else number
        raise DataError(
            f"{path}, line {line}: byte {raw[error.start]:#04x} at offset {offset + error.start} of"
            " the file is not UTF-8; save the file in UTF-8."
        ) from None


def _header(path: Path, record: list[str], delimiter: str) -> list[str]:
    names = [name.strip() for name in record]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}: the header names {brief(repeated[0])} twice; rename one.")
    other = next((mark for mark in "\t;,|" if mark != delimiter and mark in names[0]), None)
    if len(names) == 1 and other:
        raise DataError(
            f"{path}: the header is one field, {brief(names[0])}. Are the fields separated by"
            f" {other!r}? Use {delimiter!r} in {'.tsv' if delimiter == chr(9) else '.csv'} files."
        )
    return names


_JSON = json.JSONDecoder(object_pairs_hook=unique_keys)
_SPACE = re.compile(r"[ \t\r\n]*")


def _json_values(path: Path, text: str, first_line: int, texts: bool) -> Iterator[SourceRow]:
    """The objects in a text: an array of them, or one after another.

    With ``texts`` a string stands for an object with the field ``text``; blank ones are skipped.
    """

    def skip(at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]

    def fail(message: str, at: int) -> DataError:
        line = first_line + text.count("\n", 0, at)
        column = at - text.rfind("\n", 0, at)
        return DataError(f"{path}, line {line}, column {column}: not valid JSON: {message}.")

    at = skip(0)
    in_array = text.startswith("[", at)
    if in_array:
        at = skip(at + 1)
        if text.startswith("]", at) and skip(at + 1) == len(text):
            return
    line, counted = first_line, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = _JSON.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise fail(error.msg, error.pos) from None
        except RecursionError:
            raise fail("too many brackets in each other", at) from None
        except ValueError as error:  # a key twice, a number of thousands of digits
            raise fail(str(error), at) from None
        if isinstance(value, str) and texts:
            if value.strip():
                yield SourceRow(f"line {line}", {"text": value})
        elif isinstance(value, dict):
            yield SourceRow(f"line {line}", value)
        else:
            hint = f" {ONE_SIDE}" if isinstance(value, str) else ""
            raise DataError(
                f"{path}, line {line}: a row is an object with named fields, found {brief(value)}."
                f"{hint}"
            )
        at = skip(end)
        if in_array:
            if text.startswith("]", at):
                at = skip(at + 1)
                if at < len(text):
                    raise fail("something follows the end of the array", at)
                return
            if not text.startswith(",", at):
                raise fail("',' or ']' expected", at)
            at = skip(at + 1)
    if in_array:
        raise fail("the array has no end", len(text))
