"""Checkpoint of a search: measurements in a JSON lines file, from which a search resumes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odesteer.artifact import Steerer
from odesteer.errors import ArtifactError
from odesteer.methods import Amount
from odesteer.tuning.objectives.base import Measurement


class Checkpoint:
    """Measurements in a file of JSON lines, each under a hash of all that it depends on.

    Hashed are the fitted steerer, the amount, the items and the objective (its description and
    its measurements of the unsteered model, which differ for another model, other prompts or
    another judge). Records under other hashes are kept and not used. A line that was cut off
    when the process was killed is measured again.

    Parameters:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, list[Measurement]] = {}
        self._objective = ""
        if path is not None and path.exists():
            self._read(path)

    def set_objective(self, about: Mapping[str, Any], unsteered: Sequence[Measurement]) -> None:
        """Set the objective that is measured from here on."""
        plain = {"about": about, "unsteered": _plain(unsteered)}
        self._objective = _sha256(json.dumps(plain, sort_keys=True, default=repr))

    def get(self, steerer: Steerer, amount: Amount, items: range) -> list[Measurement] | None:
        """Stored measurements; None if there are none."""
        return self._known.get(self._key(steerer, amount, items))

    def add(
        self, steerer: Steerer, amount: Amount, items: range, measured: Sequence[Measurement]
    ) -> None:
        """Append measurements. Raises `ArtifactError` if they cannot be written."""
        key = self._key(steerer, amount, items)
        self._known[key] = list(measured)
        if self.path is None:
            return
        line = json.dumps({"key": key, "measured": _plain(measured)}) + "\n"
        try:
            with self.path.open("ab") as file:
                # After a line that was cut off, begin a new one.
                start = b"\n" if file.tell() and not _ends_with_newline(self.path) else b""
                file.write(start + line.encode())
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self.path}: {error.strerror or error}. What was measured before is"
                " kept; run the same again to go on."
            ) from error

    def _key(self, steerer: Steerer, amount: Amount, items: range) -> str:
        return _sha256(f"{self._objective} {steerer.digest()} {amount} {items.start} {items.stop}")

    def _read(self, path: Path) -> None:
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError as error:
            raise ArtifactError(
                f"cannot read {path}: {error.strerror or error}. Choose another folder."
            ) from error
        for line in text.splitlines():
            try:
                record = json.loads(line)
                key = str(record["key"])
                self._known[key] = [Measurement(*pair) for pair in record["measured"]]
            except (ValueError, TypeError, KeyError):
                continue


def _plain(measured: Sequence[Measurement]) -> list[list[float | None]]:
    return [[m.value, m.fluency] for m in measured]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
