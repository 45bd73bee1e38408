"""Atomic writing and untrusted input; every room relies on them."""

from pathlib import Path

import pytest

from odesteer.errors import ArtifactError, DataError, InvalidInputError
from odesteer.files import replace_file, write_file
from odesteer.untrusted import brief, has_lone_surrogate, is_integer, is_number, parse_json


def test_json_is_strict() -> None:
    assert parse_json('{"a": [1, 2.5, null]}', "it") == {"a": [1, 2.5, None]}
    for text, told in (
        ('{"a": 1, "a": 2}', "it is not valid JSON: the key 'a' stands twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[" * 200_000, "it is nested too deep"),
        (b"\xff", "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        ("[1", "not valid JSON"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            parse_json(text, "it")
    with pytest.raises(DataError, match="the file"):
        parse_json("", "the file", DataError)


def test_booleans_and_infinities_are_no_numbers() -> None:
    assert is_integer(3)
    assert is_integer(3, 3)
    assert not is_integer(2, 3)
    assert not any(map(is_integer, (True, 3.0, "3", None)))
    assert is_number(3)
    assert is_number(-0.5)
    assert not any(map(is_number, (False, float("nan"), float("inf"), "3", None, 10**400)))


def test_halves_of_surrogate_pairs_are_found() -> None:
    assert has_lone_surrogate("a\ud800")
    assert not has_lone_surrogate("a😀")


def test_long_values_are_shortened() -> None:
    assert len(brief("x" * 1000)) < 70
    assert brief([1, 2]) == "[1, 2]"


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_replacing_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    private, link = tmp_path / "private", tmp_path / "link"
    private.write_bytes(b"old")
    private.chmod(mode)
    link.symlink_to(private)
    write_file(link, b"new")
    assert (private.read_bytes(), private.stat().st_mode & 0o777) == (b"new", mode)
    assert link.is_symlink()
    (tmp_path / "usual").write_bytes(b"")
    write_file(tmp_path / "new", b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_errors_of_writing_are_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="it is a folder"):
        write_file(tmp_path, b"")
    with pytest.raises(DataError, match="there is no folder"):
        write_file(tmp_path / "missing" / "a", b"", DataError)
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "missing" / "a", b"")
