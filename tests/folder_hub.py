"""A hub that is a folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class FolderHub:
    """The part of huggingface_hub that is used, with a local folder for the hub."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.messages: list[str] = []

    def HfApi(self, token: str | None = None) -> "FolderHub":  # noqa: N802
        self.calls.append(("HfApi", {"token": token}))
        return self

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        self.calls.append(("create_repo", {"private": private}))
        if repo_id.startswith("forbidden/"):
            raise PermissionError("403 Forbidden")
        (self.root / repo_id / "main").mkdir(parents=True, exist_ok=exist_ok)

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        (self.root / repo_id / branch).mkdir(exist_ok=exist_ok)

    def upload_folder(
        self, *, repo_id: str, folder_path: str, revision: str | None, commit_message: str
    ) -> SimpleNamespace:
        self.messages.append(commit_message)
        target = self.root / repo_id / (revision or "main")
        shutil.copytree(folder_path, target, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def hf_hub_download(
        self, repo_id: str, filename: str, *, revision: str | None, token: str | None
    ) -> str:
        path = self.root / repo_id / (revision or "main") / filename
        if not path.exists():
            raise FileNotFoundError(f"404 {repo_id}/{filename}")
        return str(path)
