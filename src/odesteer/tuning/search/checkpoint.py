"""What has been measured so far, so that a search that was ended goes on where it was."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odesteer.artifact import Steerer
from odesteer.errors import ArtifactError
from odesteer.methods import Amount
from odesteer.tuning.objectives.base import Measurement


class Journal:
    """Measurements in a file of JSON lines, each filed under all that it depends on.

    That is the fitted steerer, the amount, the items, and the objective: what it says about
    itself and what it measured of the unsteered model, with which a change of the model, the
    prompts or the judge shows. What was measured under anything else is left alone. A line that
    a kill cut off is measured again.

    Parameters:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, list[Measurement]] = {}
        self._objective = ""
        if path is not None and path.exists():
            self._read(path)

    def begin(self, about: Mapping[str, Any], unsteered: Sequence[Measurement]) -> None:
        """Say which objective is measured from here on."""
        plain = {"about": about, "unsteered": _plain(unsteered)}
        self._objective = _sha(json.dumps(plain, sort_keys=True, default=repr))

    def found(self, steerer: Steerer, amount: Amount, items: range) -> list[Measurement] | None:
        """What was measured before, if it was."""
        return self._known.get(self._key(steerer, amount, items))

    def add(
        self, steerer: Steerer, amount: Amount, items: range, measured: Sequence[Measurement]
    ) -> None:
        """Keep measurements. Raises `ArtifactError` if they cannot be written."""
        key = self._key(steerer, amount, items)
        self._known[key] = list(measured)
        if self.path is None:
            return
        line = json.dumps({"key": key, "measured": _plain(measured)}) + "\n"
        try:
            with self.path.open("ab") as file:
                # A line cut off by a kill must not swallow this one.
                start = b"\n" if file.tell() and not _ends_whole(self.path) else b""
                file.write(start + line.encode())
        except OSError as error:
            raise ArtifactError(
                f"cannot write {self.path}: {error.strerror or error}. What was measured before is"
                " kept; run the same again to go on."
            ) from error

    def _key(self, steerer: Steerer, amount: Amount, items: range) -> str:
        return _sha(f"{self._objective} {steerer.digest()} {amount} {items.start} {items.stop}")

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


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
