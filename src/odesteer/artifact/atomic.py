"""Writing a file whole or not at all."""

import os
import secrets
import stat
from pathlib import Path

from odesteer.errors import ArtifactError


def write_whole(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` in one step, through a temporary file beside it.

    Whatever happens on the way, an interrupt included, leaves the old file or none. Symbolic
    links are followed. Raises `ArtifactError` if it cannot be written.
    """
    try:
        target = path.resolve()
        if target.is_dir():
            raise ArtifactError(f"cannot write {path}: it is a folder; name a file in it.")
        if not target.parent.is_dir():
            raise ArtifactError(f"cannot write {path}: there is no folder {target.parent}.")
        if target.exists():
            if not stat.S_ISREG(target.stat().st_mode):
                raise ArtifactError(f"cannot write {path}: it is no ordinary file.")
            # Replacing needs a writable folder only, but nobody expects a read-only file to go.
            if not os.access(target, os.W_OK):
                raise ArtifactError(f"cannot write {path}: the file is read-only.")
        _replace(target, data)
    except (OSError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"cannot write {path}: {reason}. Choose another path.") from error


def _replace(target: Path, data: bytes) -> None:
    # The name is not to be guessed or met twice, by threads of one process either.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    file = partial.open("xb")
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
