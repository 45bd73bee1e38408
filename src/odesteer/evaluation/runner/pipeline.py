"""Writing and judging completions in batches, each kept on disk as soon as it is there."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.runner.completions import REFUSALS, Batch, Elsewhere, Written, attempt
from odesteer.evaluation.runner.digests import digest, item_digest, model_digest, plain
from odesteer.evaluation.runner.fit_cache import Fitter
from odesteer.evaluation.runner.judge_panel import Bench
from odesteer.evaluation.runner.plan import Row
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.models import SteeredModel
from odesteer.version import __version__

GENERATIONS, SCORES, TIMES = "generations.jsonl", "scores.jsonl", "times.jsonl"

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: completions written and judged.
        total: all completions of the run, an estimate until settings are chosen.
        seconds_left: at the pace so far; None while there is none.
        doing: what goes on.
    """

    done: int
    total: int
    seconds_left: float | None
    doing: str


@dataclass(frozen=True)
class Result:
    """One completion with everything that is known of it."""

    row: Row
    written: Mapping[str, Any]
    scores: Scores

    @property
    def said(self) -> str:
        """Its setting in words."""
        return self.row.contender.said(self.row.cell)

    def to_json(self) -> dict[str, Any]:
        row = self.row
        return {
            "task": row.task.name,
            "phase": row.phase,
            "fold": row.fold.name,
            "seed": row.seed,
            "contender": row.contender.name,
            **row.cell_json(),
            "item": row.item.key,
            "sample": row.sample,
            "prompt": plain(row.item.prompt),
            **self.written,
            "scores": self.scores,
        }


class Completing:
    """Finishes rows: whatever of them is not on disk is written and judged.

    A completion counts once it is on the disk. A batch of which some are missing is written again
    as a whole, so that what is in a batch never depends on where a run was stopped, and only the
    missing ones are kept. It is used in a ``with`` block, which opens and closes the files.
    """

    def __init__(
        self,
        lm: SteeredModel,
        bench: Bench,
        folder: Path,
        batch_size: int,
        total: int,
        on_progress: Callable[[Progress], None] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        if batch_size < 1:
            raise InvalidInputError(f"batch_size must be at least 1, not {batch_size}.")
        self._lm = lm
        self._bench = bench
        self._folder = folder
        self._batch_size = batch_size
        self._total = total
        self._on_progress = on_progress
        self._elsewhere = elsewhere
        self._model = model_digest(lm)
        self._fitter = Fitter(lm, min(batch_size, 16))
        self._done = self._fresh = 0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._done = self._fresh = 0
        self._generations = ResultStore(self._folder / GENERATIONS)
        try:
            self._scores = ResultStore(self._folder / SCORES)
        except BaseException:
            self._generations.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._generations.close()
        self._scores.close()

    def expect(self, left: int) -> None:
        """Say how many completions are left."""
        self._total = self._done + left

    def forget(self) -> None:
        """Drop all fits: the next task has its own."""
        self._fitter = Fitter(self._lm, min(self._batch_size, 16))

    def finish(self, rows: Iterable[Row]) -> list[Result]:
        """The rows of one task, written and judged, in order."""
        rows = list(rows)
        self.write_ahead([rows])
        keys = self.keys(rows)
        self._fitter.prepare(r for r, key in zip(rows, keys, strict=True) if not self._has(key))
        found: dict[int, Result] = {}
        for batch in self._batches(rows):
            results = self._batch([rows[i] for i in batch], [keys[i] for i in batch])
            found.update(zip(batch, results, strict=True))
        return [found[i] for i in range(len(rows))]

    def write_ahead(self, groups: Iterable[Sequence[Row]]) -> None:
        """Write what several calls of `finish` will ask for, all at once; only elsewhere, where
        many batches are written at the same time."""
        if self._elsewhere is None:
            return
        missing: list[tuple[list[Row], list[str]]] = []
        for rows in groups:
            keys = self.keys(rows)
            for batch in self._batches(rows):
                if not all(self._has(keys[i]) for i in batch):
                    missing.append(([rows[i] for i in batch], [keys[i] for i in batch]))
        if not missing:
            return
        self._fitter.prepare(row for rows, _ in missing for row in rows)
        written = self._elsewhere([self._fitted(rows) for rows, _ in missing])
        for (rows, keys), (texts, took) in zip(missing, written, strict=True):
            self._keep(rows, keys, texts, took)
            self._say(rows[0])

    def _has(self, key: str) -> bool:
        return key in self._generations

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """What is written at a time: one quantity, rows of one steerer side by side."""
        groups: dict[str, list[int]] = {}
        for i in sorted(range(len(rows)), key=lambda i: _place(rows[i])):
            cell = rows[i].cell
            groups.setdefault("" if cell is None else cell.amount.quantity, []).append(i)
        for members in groups.values():
            for start in range(0, len(members), self._batch_size):
                yield members[start : start + self._batch_size]

    def keys(self, rows: Sequence[Row]) -> list[str]:
        """Under what completions are filed: all that they depend on."""
        found: dict[tuple[Any, ...], str] = {}
        keys = []
        for row in rows:
            at = (row.contender.name, row.cell, row.fold.name, row.seed)
            if at not in found:
                found[at] = digest(self._origin(row))
            keys.append(f"{found[at]}/{item_digest(row.item)}/{row.seed}/{row.sample}")
        return keys

    def _origin(self, row: Row) -> dict[str, Any]:
        """What a row depends on, but its item."""
        task, data = row.task, row.fold.digest
        origin: dict[str, Any] = {
            "odesteer": __version__,
            "model": self._model,
            "task": [task.name, task.version, task.kind],
            "decoding": [task.decoding, task.max_new_tokens, task.stop],
            "kind": row.contender.kind,
        }
        if row.contender.kind == "prompt":
            origin["asking"] = [task.instruction, task.shots, data]
        elif row.cell is not None:
            origin["fit"] = [data, row.seed, task.capture_position]
            origin["method"] = row.contender.method(row.cell)
            origin["cell"] = [row.cell.layer, row.cell.amount.quantity, row.cell.value]
        return origin

    def _batch(self, rows: Sequence[Row], keys: Sequence[str]) -> list[Result]:
        self._say(rows[0])
        if not all(map(self._has, keys)):
            began = time.perf_counter()
            written = attempt(self._lm, self._fitted(rows))
            self._keep(rows, keys, written, time.perf_counter() - began)
        texts = [self._generations[key] for key in keys]
        found = self._judged(rows, keys, texts)
        self._done += len(rows)
        self._say(rows[0])
        return [
            Result(row, {name: value for name, value in text.items() if name != "key"}, one)
            for row, text, one in zip(rows, texts, found, strict=True)
        ]

    def _keep(
        self, rows: Sequence[Row], keys: Sequence[str], written: Sequence[Written], took: float
    ) -> None:
        pairs = zip(keys, written, strict=True)
        self._generations.append({"key": key, **one} for key, one in pairs)
        self._fresh += len(rows)
        self._note_time(rows, written, took)

    def _judged(
        self, rows: Sequence[Row], keys: Sequence[str], texts: Sequence[Mapping[str, Any]]
    ) -> list[Scores]:
        found: list[Scores] = [{} for _ in rows]
        task = rows[0].task
        for name in self._bench.of(task):
            judged = [f"{key}/{self._bench.tag(name)}" for key in keys]
            if any(key not in self._scores for key in judged):
                known = dict.fromkeys(self._bench.metrics(name))
                verdicts = self._verdicts(name, rows, texts, known)
                if verdicts is None:
                    # Not written down: the next run may have better luck.
                    for one, key in zip(found, judged, strict=True):
                        one |= self._scores[key]["scores"] if key in self._scores else known
                    continue
                pairs = zip(judged, verdicts, strict=True)
                self._scores.append({"key": key, "scores": one} for key, one in pairs)
            for one, key in zip(found, judged, strict=True):
                one |= self._scores[key]["scores"]
        for one in found:
            one |= task.derived(one)
        return found

    def _fitted(self, rows: Sequence[Row]) -> Batch:
        """A batch with its steerers, or why one could not be fitted."""
        steerers: list[Any] = []
        for row in rows:
            try:
                steerers.append(self._fitter.steerer(row))
            except REFUSALS as error:
                steerers.append(error)
        return Batch(rows, steerers)

    def _verdicts(
        self,
        name: str,
        rows: Sequence[Row],
        texts: Sequence[Mapping[str, Any]],
        missing: Scores,
    ) -> list[Scores] | None:
        """What a judge says of the completions that there are; None if it failed."""
        there = [i for i, text in enumerate(texts) if "failed" not in text]
        judged = self._bench.judge(name, [rows[i].item for i in there], [texts[i] for i in there])
        if judged is None:
            return None
        found = [dict(missing) for _ in rows]
        for i, one in zip(there, judged, strict=True):
            found[i] = one
        return found

    def _say(self, row: Row) -> None:
        if self._on_progress is None:
            return
        left = None
        if self._fresh:
            pace = (time.monotonic() - self._began) / self._fresh
            left = pace * (self._total - self._done)
        what = "choosing settings" if row.phase == "validation" else row.contender.name
        doing = f"{row.task.name}, {what}"
        self._on_progress(Progress(self._done, max(self._total, self._done), left, doing))

    def _note_time(self, rows: Sequence[Row], written: Sequence[Written], took: float) -> None:
        """Times differ from run to run; they are kept apart from what must not.

        Only the test items of one contender are written on their own.
        """
        if rows[0].phase != "test":
            return
        record = {
            "task": rows[0].task.name,
            "contender": rows[0].contender.name,
            "completions": len(rows),
            "tokens": sum(int(one.get("tokens", 0)) for one in written),
            "seconds": took,
        }
        path = self._folder / TIMES
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise DataError(
                f"cannot write {path}: {error.strerror or error}. All results are safe; mend that"
                " and give the same command again to go on."
            ) from error


def _place(row: Row) -> tuple[Any, ...]:
    cell = row.cell
    steerer = () if cell is None else (cell.candidate, cell.layer)
    return row.contender.name, steerer, row.fold.name, row.seed
