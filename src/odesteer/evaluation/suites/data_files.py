"""Reads published data sets from local files or the hub; fixed shuffles and splits."""

import csv
import gzip
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from odesteer.errors import DataError, MissingDependencyError
from odesteer.untrusted import parse_json

FileRow = dict[str, Any]
T = TypeVar("T")


def find(data: Path, folders: Sequence[str], names: Sequence[str], remedy: str) -> Path:
    """The first of files called ``names`` in ``data`` or in one of its ``folders``.

    ``data`` may be the file itself. Raises `DataError` with the remedy.
    """
    if data.is_file():
        return data
    for folder in (data, *(data / name for name in folders)):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    what = "there is no such folder" if not data.exists() else "none of them is there"
    raise DataError(f"{data} should hold {' or '.join(names)}, but {what}. {remedy}")


def read_rows(path: Path) -> list[FileRow]:
    """Rows of a ``.csv``, ``.tsv``, ``.json``, ``.jsonl`` (also ``.gz``) or ``.parquet`` file.

    Raises `DataError` with the line that cannot be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    try:
        if kind == [".parquet"]:
            return _parquet(path)
        data = path.read_bytes()
        text = (gzip.decompress(data) if packed else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {error}. If a download was interrupted, delete the file and get"
            " it again."
        ) from error
    if kind in ([".csv"], [".tsv"]):
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t" if kind == [".tsv"] else ","
        )
        return [dict(row) for row in reader]
    if kind not in ([".json"], [".jsonl"]):
        raise DataError(f"{path} is no .csv, .tsv, .json, .jsonl, .gz of these, or .parquet file.")
    return list(_json_rows(path, text, lines=kind == [".jsonl"]))


def _json_rows(path: Path, text: str, *, lines: bool) -> Iterator[FileRow]:
    try:
        kept = [line for line in text.split("\n") if line.strip()] if lines else [text]
        found = [parse_json(each, "it", DataError) for each in kept]
        rows = found if lines else found[0]
    except DataError as error:
        raise DataError(
            f"{path} is not whole: {error}. If a download was interrupted, delete the file and get"
            " it again."
        ) from error
    for row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}: {row!r:.60} is no row of fields.")
        yield row


def _parquet(path: Path) -> list[FileRow]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            f"reading {path} needs pyarrow; install it with: pip install 'odesteer[hub]'"
        ) from None
    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no whole parquet file: {error}.") from error


def from_hub(
    dataset: str, name: str | None, split: str, columns: Sequence[str], local: str
) -> list[FileRow]:
    """Rows of a data set on the hub, no more of them than ``columns``.

    ``local`` is the remedy in error messages. Raises `DataError` if the data cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"getting {dataset} from the hub needs the datasets library; install it with:"
            f" pip install 'odesteer[hub]'. {local}"
        ) from None
    try:
        loaded = datasets.load_dataset(dataset, name, split=split)
        return [dict(row) for row in loaded.select_columns(list(columns))]
    # The library raises whatever its file systems, parsers and the network raise.
    except Exception as error:
        raise DataError(
            f"cannot get {dataset} ({split}) from the Hugging Face hub:"
            f" {' '.join(str(error).split()):.200}. What has been downloaded so far is kept; try"
            f" again. {local}"
        ) from error


def field(path: Path | str, row: FileRow, name: str) -> Any:
    """A field of a row. Raises `DataError` with the fields that the row has."""
    if row.get(name) is None:
        known = ", ".join(str(key) for key, value in row.items() if value is not None)
        raise DataError(f"{path}: a row has no {name!r}; it has {known or 'nothing'}.")
    return row[name]


def shuffled(values: Sequence[T], seed: object) -> list[T]:
    """Shuffled; the order depends on the seed and the given order alone."""
    found = list(values)
    random.Random(str(seed)).shuffle(found)
    return found


def held_out(
    groups: Sequence[str], share: float, seed: object, at_least: int = 1
) -> tuple[set[str], set[str]]:
    """Groups to keep, and a ``share`` of all groups to hold out."""
    order = shuffled(sorted(set(groups)), seed)
    n = max(at_least, round(share * len(order)))
    if n >= len(order):
        raise DataError(
            f"{len(order)} groups cannot give {n} to hold out and one to fit on; give more data."
        )
    return set(order[n:]), set(order[:n])


def first(values: Sequence[T], n: int | None) -> tuple[T, ...]:
    """The first ``n``, or all."""
    return tuple(values if n is None else values[:n])


def unique(values: Sequence[T], key: Callable[[T], str]) -> list[T]:
    """The first value of each key."""
    found: dict[str, T] = {}
    for value in values:
        found.setdefault(key(value), value)
    return list(found.values())


def hub_file(dataset: str, name: str, local: str) -> Path:
    """One file of a data set on the hub, downloaded once.

    ``local`` is the remedy in error messages. Raises `DataError` if it cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingDependencyError(
            f"getting {dataset} from the hub needs huggingface-hub; install it with:"
            f" pip install 'odesteer[hub]'. {local}"
        ) from None
    try:
        return Path(hf_hub_download(dataset, name, repo_type="dataset"))
    # The library raises whatever the network raises.
    except Exception as error:
        raise DataError(
            f"cannot get {name} of {dataset} from the Hugging Face hub:"
            f" {' '.join(str(error).split()):.200}. {local}"
        ) from error
