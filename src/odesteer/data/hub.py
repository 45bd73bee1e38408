"""Hugging Face data sets: reading of rows."""

import re
from collections.abc import Iterator
from typing import Any

from odesteer.data.formats import SourceRow
from odesteer.data.labels import label_meaning, label_text
from odesteer.errors import DataError, MissingDependencyError

PREFIX = "hub:"

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_dataset_id(text: str) -> bool:
    """Whether a text has the form ``owner/name``."""
    return _ID.fullmatch(text) is not None


def read_hub(
    dataset: str, *, name: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[SourceRow]:
    """Rows of one split of a data set; ``name`` chooses among its configurations.

    Raises `MissingDependencyError` without the datasets library, and `DataError` if the data set
    cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"reading {dataset!r} from the hub needs the datasets library; install it with:"
            " pip install 'odesteer[hub]'"
        ) from None
    try:
        table = datasets.load_dataset(dataset, name, split=split, revision=revision)
    # The library raises the errors of its file systems, its parsers and the network.
    except Exception as error:
        raise DataError(
            f"cannot read data set {dataset!r} (configuration {name or 'default'}, split {split!r},"
            f" revision {revision or 'newest'}) from the hub: {type(error).__name__}: {error}"
        ) from error
    labels = _label_names(table.features.get("label"))
    for number, record in enumerate(table, start=1):
        fields = dict(record)
        if labels and isinstance(fields.get("label"), int):
            fields["label"] = labels.get(fields["label"], fields["label"])
        yield SourceRow(f"row {number}", fields)


def _label_names(feature: Any) -> dict[int, str]:
    """The sides that the integers of a label column stand for, where the data set names them.

    Some data sets have 0 for positive.
    """
    names = [label_text(name) for name in getattr(feature, "names", None) or ()]
    if any(label_meaning(name) is None for name in names):
        return {}
    return {i: str(name) for i, name in enumerate(names)}
