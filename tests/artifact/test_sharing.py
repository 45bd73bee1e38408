"""Sharing steerers on a hub that is a folder."""

import sys
from pathlib import Path

import pytest

from folder_hub import FolderHub
from odesteer.artifact import Steerer
from odesteer.errors import ArtifactError, InvalidInputError, MissingDependencyError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    hub = FolderHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    return hub


def test_what_is_pushed_comes_back(hub: FolderHub, steerer: Steerer) -> None:
    address = steerer.push_to_hub("me/truthful", private=True, token="hf_x")
    assert address == "https://hub/me/truthful/commit/1"
    assert hub.calls[:2] == [("HfApi", {"token": "hf_x"}), ("create_repo", {"private": True})]
    files = sorted(file.name for file in (hub.root / "me/truthful/main").iterdir())
    assert files == ["README.md", "steerer.safetensors"]
    assert 'from_pretrained("me/truthful")' in (hub.root / "me/truthful/main/README.md").read_text()
    assert Steerer.from_pretrained("me/truthful").digest() == steerer.digest()


def test_revisions(hub: FolderHub, steerer: Steerer) -> None:
    steerer.push_to_hub("me/truthful", revision="v2")
    assert Steerer.from_pretrained("me/truthful", revision="v2").digest() == steerer.digest()
    with pytest.raises(ArtifactError, match="FileNotFoundError: 404"):
        Steerer.from_pretrained("me/truthful")


def test_failed_uploads_say_why(hub: FolderHub, steerer: Steerer) -> None:
    with pytest.raises(ArtifactError, match=r"'forbidden/x'.*403 Forbidden"):
        steerer.push_to_hub("forbidden/x")


def test_folders_and_files(steerer: Steerer, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "truthful"
    steerer.save_pretrained(folder)
    steerer.save_pretrained(folder)
    for source in (folder, str(folder), folder / "steerer.safetensors"):
        assert Steerer.from_pretrained(source).digest() == steerer.digest()
    with pytest.raises(InvalidInputError, match="revision='main' is for the hub"):
        Steerer.from_pretrained(folder, revision="main")


def test_folders_without_a_steerer(steerer: Steerer, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no steerer\.safetensors\.$"):
        Steerer.from_pretrained(tmp_path)
    steerer.save(tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match=r"other\.safetensors"):
        Steerer.from_pretrained(tmp_path)


@pytest.mark.parametrize("source", ["runs/a.safetensors", "a/b/c", "/nowhere", "name", ""])
def test_missing_files_are_not_looked_for_on_the_hub(hub: FolderHub, source: str) -> None:
    with pytest.raises(ArtifactError, match=r"no (such )?file|has no steerer"):
        Steerer.from_pretrained(source)
    assert not hub.calls


def test_the_readme_of_others_is_kept(steerer: Steerer, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(ArtifactError, match=r"README\.md was not written by odesteer"):
        steerer.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_a_file_in_place_of_the_folder(steerer: Steerer, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArtifactError, match="cannot write to"):
        steerer.save_pretrained(tmp_path / "taken")


def test_without_the_library(
    steerer: Steerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[hub\]'"):
        steerer.push_to_hub("me/truthful")
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[hub\]'"):
        Steerer.from_pretrained("me/truthful")


def test_the_real_library_takes_these_arguments() -> None:
    library = pytest.importorskip("huggingface_hub")
    import inspect

    for function, wanted in (
        (library.HfApi.upload_folder, {"repo_id", "folder_path", "revision", "commit_message"}),
        (library.HfApi.create_repo, {"repo_id", "private", "exist_ok"}),
        (library.HfApi.create_branch, {"repo_id", "branch", "exist_ok"}),
        (library.HfApi.__init__, {"token"}),
        (library.hf_hub_download, {"repo_id", "filename", "revision", "token"}),
    ):
        assert wanted <= set(inspect.signature(function).parameters)
