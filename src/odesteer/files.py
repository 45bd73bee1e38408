"""Atomic writing of files: the whole new content, or the old file."""

import os
import secrets
import stat
from pathlib import Path

from odesteer.errors import ArtifactError, OdesteerError


def write_file(path: Path, data: bytes, error: type[OdesteerError] = ArtifactError) -> None:
    """Replace the content of a file as `replace_file` does; symbolic links are followed.

    Raises ``error`` for folders, devices, read-only files, and whatever the system refuses.
    """
    try:
        target = path.resolve()
        if target.is_dir():
            raise error(f"cannot write {path}: it is a folder; name a file in it.")
        if not target.parent.is_dir():
            raise error(f"cannot write {path}: there is no folder {target.parent}.")
        if target.exists():
            if not stat.S_ISREG(target.stat().st_mode):
                raise error(f"cannot write {path}: it is no ordinary file.")
            # Replacing needs a writable folder only, but nobody expects a read-only file to go.
            if not os.access(target, os.W_OK):
                raise error(f"cannot write {path}: the file is read-only.")
        replace_file(target, data)
    except (OSError, ValueError) as reason:
        if isinstance(reason, error):
            raise
        message = getattr(reason, "strerror", None) or reason
        raise error(f"cannot write {path}: {message}. Choose another path.") from reason


def replace_file(path: Path, data: bytes) -> None:
    """Replace the content of a file in one step, through a temporary file beside it.

    An interrupt or an error leaves the old file, or none. A file that exists keeps its permissions;
    the temporary file has no others at any time. Raises `OSError`.
    """
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    # The name is unguessable and differs between the threads of one process.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    # Nobody else can open it before its permissions are those of the old file.
    created = 0o666 if mode is None else 0o600
    file = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, created), "wb")
    try:
        with file:
            if mode is not None:
                partial.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
