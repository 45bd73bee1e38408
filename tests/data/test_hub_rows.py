"""Hugging Face data sets, with the library's reading function replaced."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odesteer.data import ContrastData, hub, load_contrast
from odesteer.errors import DataError, InvalidInputError, MissingDependencyError


class Table(list[dict[str, Any]]):
    """A table of the library, as far as it is used."""

    features: dict[str, Any] = {}  # noqa: RUF012


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A stand-in for the datasets library that notes what it is asked for."""
    table = Table([{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    library = SimpleNamespace(table=table, asked=[])

    def load_dataset(dataset: str, name: str | None, *, split: str, revision: str | None) -> Table:
        library.asked.append((dataset, name, split, revision))
        return library.table

    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    return library


def test_ids_are_read_from_the_hub(library: SimpleNamespace) -> None:
    assert load_contrast("owner/pairs") == ContrastData.from_texts(["a"], ["b"])
    load_contrast("hub:pairs", name="en", split="test", revision="abc")
    assert library.asked == [
        ("owner/pairs", None, "train", None),
        ("pairs", "en", "test", "abc"),
    ]


def test_files_come_before_the_hub(library: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "pairs").write_text('{"positive": "x", "negative": "y"}')
    assert load_contrast("owner/pairs", format="jsonl").positive[0].response == "x"
    assert load_contrast("hub:owner/pairs").positive[0].response == "a"
    assert len(library.asked) == 1


@pytest.mark.parametrize("source", ["owner/pairs.jsonl", "a/b/c", "pairs", "./pairs", "/pairs"])
def test_missing_files_are_not_looked_for_on_the_hub(library: SimpleNamespace, source: str) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_contrast(source)
    assert not library.asked


def test_formats_are_for_files(library: SimpleNamespace) -> None:
    with pytest.raises(InvalidInputError, match=r"format='json' is for files.*'owner/pairs'"):
        load_contrast("owner/pairs", format="json")


@pytest.mark.parametrize(
    ("names", "first"),
    [(["neg", "pos"], "a"), (["Positive", "Negative"], "b"), (["clean", "toxic"], "a")],
)
def test_named_labels_mean_their_names(
    library: SimpleNamespace, names: list[str], first: str
) -> None:
    library.table.features = {"label": SimpleNamespace(names=names)}
    assert load_contrast("owner/pairs").positive[0].response == first


def test_errors_name_the_row(library: SimpleNamespace) -> None:
    library.table.append({"text": None, "label": 1})
    with pytest.raises(DataError, match="owner/pairs, row 3, field 'text': found null"):
        load_contrast("owner/pairs")


def test_what_the_library_raises_is_passed_on(library: SimpleNamespace) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    library.load_dataset = fail
    with pytest.raises(DataError, match=r"'owner/pairs' \(.*split 'train'.*no route to the hub"):
        load_contrast("owner/pairs")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[hub\]'"):
        load_contrast("owner/pairs")


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("a/b", True),
        ("HuggingFaceH4/x_y-z.v2", True),
        ("a", False),
        ("a/b/c", False),
        ("../b", False),
    ],
)
def test_what_looks_like_an_id(text: str, is_id: bool) -> None:
    assert hub.is_dataset_id(text) is is_id


def test_the_real_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    table = datasets.Dataset.from_list(
        [{"text": "good", "label": 0}, {"text": "bad", "label": 1}], features=features
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: table)
    assert load_contrast("owner/pairs") == ContrastData.from_texts(["good"], ["bad"])
