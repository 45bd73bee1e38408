"""Checks of output paths before a command starts its work."""

import os
from pathlib import Path

from odesteer.errors import ArtifactError


def check_output(path: Path, *, force: bool) -> None:
    """Raise `ArtifactError` if a file cannot be written, or exists without ``force``."""
    target = path.resolve()
    if target.is_dir():
        raise ArtifactError(f"cannot write {path}: it is a folder; name a file in it.")
    check_folder(target.parent, path)
    if not target.exists():
        return
    if not force:
        raise ArtifactError(f"{path} exists; choose another name, or replace it with --force.")
    if not os.access(target, os.W_OK):
        raise ArtifactError(f"cannot write {path}: the file is read-only; choose another name.")


def check_folder(folder: Path, path: Path) -> None:
    """Raise `ArtifactError` if ``path`` cannot be made in ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"cannot write {path}: {folder} is a file, not a folder.")
    if not folder.exists():
        raise ArtifactError(
            f"cannot write {path}: there is no folder {folder}; make it with mkdir -p, or choose"
            " another."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ArtifactError(
            f"cannot write {path}: the folder {folder} is read-only; choose another."
        )


def check_new_folder(folder: Path) -> None:
    """Raise `ArtifactError` if a folder for output does not exist and cannot be made."""
    target = folder.resolve()
    check_folder(target if target.exists() else target.parent, folder)
