"""Append-only JSON Lines store of results by key, safe against being killed and full disks."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Self

from odesteer.errors import DataError


class ResultStore:
    """A file of records by key, readable after the process was killed at any moment.

    A record counts once its line is complete; an incomplete last line is cut off when the file is
    opened again. A key that is stored already is not written again. Raises `DataError` if the file
    cannot be read or written, and if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, dict[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused must not be written later by closing the file.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._failure("open", error) from error
        try:
            _lock(self._file, path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._records[key]

    def __len__(self) -> int:
        return len(self._records)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records, each with its ``key``, and make sure that they are on the disk."""
        new = {str(record["key"]): dict(record) for record in records}
        new = {key: record for key, record in new.items() if key not in self._records}
        if not new:
            return
        end = os.fstat(self._file.fileno()).st_size
        data = b"".join(_line(record) for record in new.values())
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._drop_from(end)
            raise self._failure("write", error) from error
        self._records.update(new)

    def _drop_from(self, end: int) -> None:
        """Undo an incomplete write; if that fails too, the next opening does it."""
        try:
            os.ftruncate(self._file.fileno(), end)
        except OSError:
            return

    def _read(self) -> None:
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                key = record["key"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}: the line at byte {whole} is no record of results ({error});"
                    " the file was changed by something else. Delete that line, or choose another"
                    " output folder."
                ) from error
            whole += len(line)
            self._records.setdefault(key, record)
        if whole < os.fstat(self._file.fileno()).st_size:
            os.ftruncate(self._file.fileno(), whole)

    def _failure(self, what: str, error: OSError) -> DataError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space"
        else:
            remedy = "check the folder and its permissions"
        return DataError(
            f"cannot {what} {self.path}: {error.strerror or error}. {len(self._records)} results"
            f" are safe there; {remedy} and give the same command again to go on."
        )


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Lone surrogates, which a model may write, are no UTF-8; JSON has an escape for them.
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return  # a file system without locks
        raise DataError(
            f"{path} is in use by another benchmark; wait for it, or choose another output folder."
        ) from error
