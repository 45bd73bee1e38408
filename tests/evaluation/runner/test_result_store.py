"""The file of results: whole lines count, half ones do not."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odesteer.errors import DataError
from odesteer.evaluation.runner import ResultStore


def test_records_come_back(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "r.jsonl") as store:
        store.append([{"key": "a", "text": "x\ny\u2028\ud800"}, {"key": "b", "score": None}])
    with ResultStore(tmp_path / "r.jsonl") as store:
        assert len(store) == 2
        assert store["a"]["text"] == "x\ny\u2028\ud800"
        assert store["b"]["score"] is None


def test_a_key_counts_once(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "r.jsonl") as store:
        store.append([{"key": "a", "n": 1}])
        store.append([{"key": "a", "n": 2}, {"key": "b", "n": 3}])
        assert store["a"]["n"] == 1
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]


@given(cut=st.integers(min_value=0, max_value=60))
def test_cut_anywhere_whole_lines_stay(tmp_path_factory: Any, cut: int) -> None:
    path = tmp_path_factory.mktemp("store") / "r.jsonl"
    with ResultStore(path) as store:
        store.append({"key": f"k{i}", "n": i} for i in range(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = path.read_bytes().count(b"\n")
    with ResultStore(path) as store:
        assert len(store) == kept
        store.append({"key": f"k{i}", "n": i} for i in range(4))
    assert path.read_bytes() == whole


def test_a_foreign_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("not JSON\n")
    with pytest.raises(DataError, match="byte 0 is no record"):
        ResultStore(tmp_path / "r.jsonl")


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    with (
        ResultStore(tmp_path / "r.jsonl"),
        pytest.raises(DataError, match="in use by another benchmark"),
    ):
        ResultStore(tmp_path / "r.jsonl")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    store = ResultStore(path)
    store.append([{"key": "a"}])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DataError, match=r"No space left.* 1 results are safe.*free some space"):
            store.append([{"key": "b"}])
    assert "b" not in store
    store.close()
    with ResultStore(path) as again:
        assert len(again) == 1
        again.append([{"key": "b"}])
        assert "b" in again
