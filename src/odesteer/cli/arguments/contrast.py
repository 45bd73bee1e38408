"""Contrastive data from the options that ``odesteer fit`` and ``odesteer tune`` share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from odesteer.cli.arguments.options import OnBadRow
from odesteer.cli.errors import UsageError

if TYPE_CHECKING:
    from odesteer.data import ContrastData

_OPTIONS = {"columns": "column", "name": "subset"}


def check_sources(data: str | None, positive: Path | None, negative: Path | None) -> bool:
    """Whether data are named. Raises `UsageError` for one side alone, or beside ``--data``."""
    if (positive is None) != (negative is None):
        given, missing = ("positive", "negative") if negative is None else ("negative", "positive")
        raise UsageError(f"--{given} is one side; name the other with --{missing} FILE.")
    if data is not None and positive is not None:
        raise UsageError("--data has both sides; leave it out, or --positive and --negative.")
    return data is not None or positive is not None


def read_data(
    data: str | None,
    positive: Path | None,
    negative: Path | None,
    *,
    column: Sequence[str],
    duplicates: OnBadRow,
    identical: OnBadRow,
    subset: str | None,
    split: str | None,
) -> "ContrastData":
    """The data that the options name; errors advise options."""
    from odesteer.cli.arguments.parameters import pairs_of
    from odesteer.data.load import read_contrast

    return read_contrast(
        data,
        positive=positive,
        negative=negative,
        columns=pairs_of(column, "--column"),
        duplicates=duplicates,
        identical=identical,
        name=subset,
        split=split,
        spelled=option,
    )


def option(name: str, value: object) -> str:
    """An argument of `load_contrast` as the option of the command: ``--duplicates drop``."""
    written = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
    return f"--{_OPTIONS.get(name, name)} {written}"
