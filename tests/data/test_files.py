"""File readers: the same rows from every file format, and broken files."""

import csv
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odesteer.data import ContrastData, Example, load_contrast, save_contrast
from odesteer.data import readers as files
from odesteer.errors import DataError, InvalidInputError, MissingDependencyError, OdesteerError

ROWS = [
    {"prompt": "Is it so?\n", "chosen": 'Yes, "so".', "rejected": "No;\tnot so"},
    {"prompt": "Où?", "chosen": "Ici, là 🙂", "rejected": "Nulle part"},
    {"prompt": "Is it so?\n", "chosen": "It is.", "rejected": "Never"},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    write_csv(path, rows, "\t")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "jsonl": write_jsonl,
    "ndjson": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "tsv": write_tsv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_data(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{suffix}"
    WRITERS[suffix](path, ROWS)
    data = load_contrast(path)
    assert data.positive == (
        Example("Is it so?\n", 'Yes, "so".'),
        Example("Où?", "Ici, là 🙂"),
        Example("Is it so?\n", "It is."),
    )
    assert data.groups_positive == ("Is it so?\n", "Où?", "Is it so?\n") == data.groups_negative
    write_jsonl(tmp_path / "same.jsonl", ROWS)
    assert data.digest() == load_contrast(str(tmp_path / "same.jsonl")).digest()


def test_every_reader_is_tested() -> None:
    assert set(files.READERS) == set(WRITERS)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_byte_order_marks_and_blank_lines(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{suffix}"
    WRITERS[suffix](path, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\n")
    assert len(load_contrast(path)) == 6


def test_json_lines_named_json(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    write_jsonl(path, ROWS)
    assert len(load_contrast(path)) == 6


def test_a_format_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_jsonl(path, ROWS)
    with pytest.raises(DataError, match=r"'\.txt' is not known; use one of jsonl, ndjson, json"):
        load_contrast(path)
    assert len(load_contrast(path, format="jsonl")) == 6
    with pytest.raises(DataError, match="'xml' is not known"):
        load_contrast(path, format="xml")


@pytest.mark.parametrize("suffix", ["txt", "json", "jsonl", "csv"])
def test_a_file_for_each_side(suffix: str, tmp_path: Path) -> None:
    sides = {"positive": ["warm", "sunny, bright", "42"], "negative": ["cold", "grey"]}
    for name, texts in sides.items():
        text = {
            "txt": "\ufeff" + "\n\n".join(texts) + "\r\n",
            "json": json.dumps([*texts, " "], indent=2),
            "jsonl": "".join(f"{json.dumps(text)}\n" for text in texts),
            "csv": "statement\n" + "".join(f'"{text}"\n' for text in texts),
        }[suffix]
        (tmp_path / f"{name}.{suffix}").write_text(text, encoding="utf-8", newline="")
    paths = {name: tmp_path / f"{name}.{suffix}" for name in sides}
    columns = {"text": "statement"} if suffix == "csv" else None
    data = load_contrast(**paths, columns=columns)
    assert data == ContrastData.from_texts(sides["positive"], sides["negative"])


def test_rows_of_one_side_may_have_prompts(tmp_path: Path) -> None:
    for name, text in (("a", "yes"), ("b", "no")):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": "q", "text": text}])
    data = load_contrast(positive=tmp_path / "a.jsonl", negative=tmp_path / "b.jsonl")
    assert (data.positive, data.groups) == ((Example("q", "yes"),), (("q",), ("q",)))


def test_errors_of_two_files_name_the_file_and_the_line(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("warm\n")
    b.write_text("cold\n\nwarm\n")
    with pytest.raises(DataError, match=r"line 3 of .*b\.txt: 'warm' has the opposite label in"):
        load_contrast(positive=a, negative=b)
    b.write_text("")
    with pytest.raises(DataError, match="negative example"):
        load_contrast(positive=a, negative=b)
    write_jsonl(tmp_path / "c.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(DataError, match=r"c\.jsonl, line 1: found a 'label' in a file of negative"):
        load_contrast(positive=a, negative=tmp_path / "c.jsonl")
    with pytest.raises(DataError, match=r"there is no file .*missing\.txt"):
        load_contrast(positive=a, negative=tmp_path / "missing.txt")
    with pytest.raises(
        DataError, match=r"'\.txt' is not known.*a file for each side, positive and"
    ):
        load_contrast(a)
    (tmp_path / "d.json").write_text('["a", "b"]')
    with pytest.raises(DataError, match=r"found 'a'\. Texts alone are one side"):
        load_contrast(tmp_path / "d.json")


@pytest.mark.parametrize("sides", [(), ("positive",), ("negative",)])
@pytest.mark.parametrize("with_source", [False, True])
def test_a_source_or_two_files(sides: tuple[str, ...], with_source: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, ROWS)
    if with_source and not sides:
        sides = ("positive", "negative")
    with pytest.raises(InvalidInputError, match="one source with both sides, or two files"):
        load_contrast(path if with_source else None, **dict.fromkeys(sides, path))


BROKEN: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b"", "holds no rows"),
    ("a.json", b"", "holds no rows"),
    ("a.json", b" [ ] ", "holds no rows"),
    ("a.csv", b"", "holds no rows"),
    ("a.csv", b"text,label\n", "holds no rows"),
    ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b" "label": 0}\n', "line 2, column 14"),
    ("a.jsonl", b'{"text": "a", "label": 1} {}\n', "line 1: 2 rows on one line"),
    ("a.jsonl", b'\n\n["a"]\n["b", ', "line 3: a row is an object"),
    ("a.jsonl", b'{"text": "a", "text": "b", "label": 1}', "line 1.*'text' stands twice"),
    ("a.jsonl", b"[" * 100_000, "line 1, column 2.*brackets"),
    ("a.jsonl", b'{"a":' * 100_000, "line 1, column 1.*brackets"),
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", "line 1, column 1: not valid JSON"),
    ("a.json", b'[\n{"text": "a",\n "label": }]', "line 3, column 11: not valid JSON"),
    ("a.json", b'[{"text": "a", "label": 1}', "the array has no end|',' or '\\]' expected"),
    ("a.json", b'[{"text": "a", "label": 1}] x', "line 1, column 29.*follows the end"),
    ("a.json", b'[{"text": "a", "label": 1} 3]', "line 1, column 28.*expected"),
    ("a.json", b'[\n"text"]', "line 2: a row is an object with named fields, found 'text'"),
    ("a.json", b"3", "line 1: a row is an object with named fields, found 3"),
    ("a.json", b'{"text": "a", "label": 1}\n{', "line 2, column 2"),
    ("a.csv", b"text,label\na,1\nb\n", "line 3: 1 fields, but the header has 2"),
    ("a.csv", b'text,label\n"a\nb",1\nc,2,3\n', "line 4: 3 fields"),
    ("a.csv", b'text,label\n"a" b,1\n', "line 2: not a well-formed row"),
    ("a.csv", b'text,label\n"a,1\nb,0\n', "line 2: not a well-formed row.*end of data"),
    ("a.csv", b"text,text\na,b\n", "names 'text' twice"),
    ("a.csv", b"text\tlabel\na\t1\n", r"separated by '\\t'"),
    ("a.tsv", b"text,label\na,1\n", r"separated by ','.*'\.tsv'|separated by ','"),
    ("a.csv", b"text,label\n" + b"x" * 140_000 + b",1\n", "line 2.*field larger"),
    (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n{"text": "\xe9t\xe9"}\n',
        "line 2: byte 0xe9 at offset 36",
    ),
    ("a.json", b'\xef\xbb\xbf[\n\n"\xff"]', "line 3: byte 0xff at offset 7"),
    ("a.csv", b"text,label\n\xc3\x28,1\n", "line 2: byte 0xc3 at offset 11"),
    ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "is in UTF-16; save it in UTF-8"),
    ("a.parquet", b"PAR1 no table PAR1", "not a readable Parquet file"),
    ("a.parquet", b"", "not a readable Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "told"), BROKEN, ids=range(len(BROKEN)))
def test_broken_files_are_refused_with_the_place(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        load_contrast(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600 + len(str(path))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.jsonl", "line 1: the line is longer than 16,000,000 bytes"),
        ("a.csv", "line 1: the line is longer than 16,000,000 bytes"),
        ("a.json", "more than 512,000,000 bytes"),
    ],
)
def test_lines_of_two_gigabytes_are_not_read(name: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)  # a hole, which takes no space
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=told):
            load_contrast(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000


def test_long_fields_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odesteer.data.fields.MAX_CHARACTERS", 10)
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"text": "x" * 11, "label": 1}])
    with pytest.raises(DataError, match="line 1, field 'text': the text has 11 characters"):
        load_contrast(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_files_raise_nothing_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{suffix}"
    WRITERS[suffix](path, ROWS)
    whole = path.read_bytes()
    for i in range(0, len(whole), 5):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 0x15]) + whole[i + 1 :]):
            path.write_bytes(damaged)
            try:
                load_contrast(path, identical="drop")
            except OdesteerError:
                continue
            except UserWarning:
                continue


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_noise_is_refused(suffix: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load_contrast(path)


def test_missing_files_name_their_neighbours(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs-train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file .*pairs\.jsonl.*near it: 'pairs-train\.jsonl'"):
        load_contrast(tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match=r"no folder .*nowhere either"):
        load_contrast(tmp_path / "nowhere" / "pairs.jsonl")


def test_folders_name_their_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; name a file\."):
        load_contrast(tmp_path)
    write_jsonl(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(DataError, match=r"is a folder; name one of .*'pairs\.jsonl'"):
        load_contrast(tmp_path)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, ROWS)

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"cannot read .*pairs\.jsonl: Permission denied"):
        load_contrast(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.lib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[hub\]'"):
        load_contrast(tmp_path / "a.parquet")


@pytest.mark.parametrize("option", ["name", "split", "revision"])
def test_options_of_the_hub_are_refused_for_files(option: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, ROWS)
    with pytest.raises(InvalidInputError, match=f"{option}='x' is for data sets on the hub"):
        load_contrast(path, **{option: "x"})  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    positive=st.lists(TEXT, min_size=1, max_size=5, unique=True),
    negative=st.lists(TEXT, min_size=1, max_size=5, unique=True),
)
def test_saved_data_come_back(positive: list[str], negative: list[str], tmp_path: Path) -> None:
    negative = [text for text in negative if text not in positive]
    if not negative:
        return
    data = ContrastData.from_texts(positive, negative)
    save_contrast(data, tmp_path / "a.jsonl")
    assert load_contrast(tmp_path / "a.jsonl") == data


def test_saved_pairs_come_back(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    data = load_contrast(tmp_path / "a.jsonl")
    save_contrast(data, tmp_path / "b.jsonl")
    assert load_contrast(tmp_path / "b.jsonl").digest() == data.digest()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.jsonl", "b.jsonl"]


def test_data_that_rows_cannot_express_are_not_saved(tmp_path: Path) -> None:
    twice = ContrastData.from_texts(["a", "a"], ["b"])
    with pytest.raises(DataError, match=r"cannot be written as rows.*repeats"):
        save_contrast(twice, tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


def test_saving_where_it_cannot_be(tmp_path: Path) -> None:
    data = ContrastData.from_texts(["a"], ["b"])
    with pytest.raises(DataError, match=r"cannot write .*there is no folder"):
        save_contrast(data, tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(DataError, match="cannot write"):
        save_contrast(data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_real_lists_of_texts(shared: Path) -> None:
    folder = shared / "data" / "repe"
    data = load_contrast(positive=folder / "happiness.json", negative=folder / "sadness.json")
    assert (len(data.positive), len(data.negative)) == (203, 228)
    with pytest.warns(UserWarning, match="dropped 1 of"):
        data = load_contrast(positive=folder / "surprise.json", negative=folder / "disgust.json")
    assert (len(data.positive), len(data.negative)) == (208, 204)
