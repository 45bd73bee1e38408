"""``odesteer push`` to a hub that is a folder, and steering with the pushed file."""

import sys
from pathlib import Path

import pytest
from command import Run, files_in

from folder_hub import FolderHub
from odesteer import load


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    hub = FolderHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    return hub


def test_what_is_pushed_can_be_used_by_its_name(
    run: Run, hub: FolderHub, steerer: str, model: str
) -> None:
    outcome = run("push", steerer, "me/sunny", "--private", "-m", "First", "--json")
    assert outcome.document["to"] == "https://hub/me/sunny/commit/1"
    assert ("create_repo", {"private": True}) in hub.calls
    assert hub.messages == ["First"]
    assert run("inspect", "me/sunny", "--json").document["digest"] == load(steerer).digest()
    words = ("--max-new-tokens", "5", "--json", "Day 1:")
    by_name = run("generate", model, "--steer", "me/sunny@1", *words).document
    by_file = run("generate", model, "--steer", f"{steerer}@1", *words).document
    assert by_name["results"] == by_file["results"]


def test_pushing_to_a_branch(run: Run, hub: FolderHub, steerer: str) -> None:
    assert run("push", steerer, "me/sunny", "--revision", "v2").code == 0
    assert (hub.root / "me/sunny/v2/steerer.safetensors").exists()


def test_a_path_is_a_folder(run: Run, steerer: str, tmp_path: Path) -> None:
    outcome = run("push", steerer, "./shared")
    assert outcome.code == 0
    assert sorted(files_in(tmp_path / "shared")) == ["README.md", "steerer.safetensors"]
    assert run("inspect", "./shared").code == 0
    outcome = run("push", steerer, "./other", "--private")
    assert outcome.code == 2
    assert outcome.says("./other", "--private")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("file", "to", "said"),
    [
        ("nothing.safetensors", "me/sunny", "no such file"),
        (None, "forbidden/x", "403 Forbidden"),
    ],
)
def test_what_cannot_be_pushed(
    run: Run, hub: FolderHub, steerer: str, file: str | None, to: str, said: str
) -> None:
    outcome = run("push", file or steerer, to)
    assert outcome.code == 1
    assert outcome.says(said)
