"""Resumable pipeline of a run: generates and judges completions in batches, each saved at once."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import Self

from odesteer.artifact import Steerer, SteererSet
from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.judges import Scores
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.evaluation.runner.completions import (
    FAILURES,
    BatchExecutor,
    Completion,
    CompletionBatch,
    complete_batch,
)
from odesteer.evaluation.runner.digests import completion_keys, model_digest
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.runner.results import Result
from odesteer.evaluation.runner.steerer_cache import SteererCache
from odesteer.models import SteeredModel

GENERATIONS, SCORES, TIMES = "generations.jsonl", "scores.jsonl", "times.jsonl"


@dataclass(frozen=True)
class BenchmarkProgress:
    """How far a run is.

    Attributes:
        done: completions generated and judged.
        total: all completions of the run, an estimate until settings are chosen.
        seconds_left: of generating and judging, at the pace so far, captures and fits apart; None
            before the first completion.
        activity: the task, and the contender, that settings are being chosen, activations are
            captured or methods fitted.
    """

    done: int
    total: int
    seconds_left: float | None
    activity: str


class CompletionPipeline:
    """Generates and judges completions that are not on disk yet, and reads the others.

    A completion counts once it is on disk. A batch of which some completions are missing is
    generated again as a whole, so that the contents of a batch never depend on where a run was
    stopped; only the missing ones are saved. Use it in a ``with`` block, which opens and closes
    the files.
    """

    def __init__(
        self,
        lm: SteeredModel,
        judges: JudgePanel,
        folder: Path,
        batch_size: int,
        total: int,
        on_progress: Callable[[BenchmarkProgress], None] | None = None,
        executor: BatchExecutor | None = None,
    ) -> None:
        if batch_size < 1:
            raise InvalidInputError(f"batch_size must be at least 1, not {batch_size}.")
        self._lm = lm
        self._judges = judges
        self._folder = folder
        self._batch_size = batch_size
        self._total = total
        self._on_progress = on_progress
        self._executor = executor
        self._model = model_digest(lm)
        self._fits = SteererCache(lm, min(batch_size, 16), self._report_activity)
        self._scorer = PrefixScorer(lm)
        self._done = self._generated = 0
        self._seconds = 0.0  # of generating and judging
        self._task = ""

    def __enter__(self) -> Self:
        self._done = self._generated = 0
        self._seconds = 0.0
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

    def set_remaining(self, n: int) -> None:
        """Update the number of completions that are left, for progress."""
        self._total = self._done + n

    def clear_fits(self) -> None:
        """Drop all fitted steerers; the next task has its own."""
        self._fits = SteererCache(self._lm, min(self._batch_size, 16), self._report_activity)

    def complete(self, specs: Iterable[CompletionSpec]) -> list[Result]:
        """The completions of one task, generated and judged, in order."""
        every = list(specs)
        self.generate_ahead([every])
        keys = self.keys(every)
        # What does not depend on the seed is measured once for all seeds.
        first: dict[str, CompletionSpec] = {}
        for spec, key in zip(every, keys, strict=True):
            first.setdefault(key, spec)
        different = list(first.values())
        self._task = different[0].task.name if different else ""
        self._fits.prepare(spec for key, spec in first.items() if not self._has(key))
        found: dict[str, Result] = {}
        for indices in self._batches(different):
            batch = [different[i] for i in indices]
            found.update(zip(self.keys(batch), self._complete(batch), strict=True))
        self._done += len(every) - len(different)
        return [replace(found[key], spec=spec) for spec, key in zip(every, keys, strict=True)]

    def generate_ahead(self, groups: Iterable[Sequence[CompletionSpec]]) -> None:
        """Generate what later calls of `complete` will need, many batches at a time.

        Does nothing without an executor.
        """
        if self._executor is None:
            return
        missing: list[tuple[list[CompletionSpec], list[str]]] = []
        taken: set[str] = set()
        for group in groups:
            specs = [
                spec
                for spec, key in zip(group, self.keys(group), strict=True)
                if not (key in taken or taken.add(key))  # type: ignore[func-returns-value]
            ]
            keys = self.keys(specs)
            for indices in self._batches(specs):
                if not all(self._has(keys[i]) for i in indices):
                    missing.append(([specs[i] for i in indices], [keys[i] for i in indices]))
        if not missing:
            return
        self._fits.prepare(spec for specs, _ in missing for spec in specs)
        generated = self._executor([self._with_steerers(specs) for specs, _ in missing])
        for (specs, keys), (completions, seconds) in zip(missing, generated, strict=True):
            self._save(specs, keys, completions, seconds)
            self._report_progress(specs[0])

    def stored(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` gives, from the store of scores where it is there."""
        if key not in self._scores:
            self._scores.append([{"key": key, "scores": make()}])
        found: dict[str, Any] = self._scores[key]["scores"]
        return found

    def steerer(self, spec: CompletionSpec) -> Steerer | SteererSet | None:
        """The fitted steerer of a completion; None for baselines. Raises as its fit does."""
        return self._fits.steerer(spec)

    def keys(self, specs: Sequence[CompletionSpec]) -> list[str]:
        """The keys of completions in the store."""
        return completion_keys(self._model, specs)

    def _has(self, key: str) -> bool:
        return key in self._generations

    def _batches(self, specs: Sequence[CompletionSpec]) -> Iterator[list[int]]:
        """Indices of each batch: one quantity, specs of one steerer side by side."""
        groups: dict[str, list[int]] = {}
        for i in sorted(range(len(specs)), key=lambda i: _steerer_order(specs[i])):
            setting = specs[i].setting
            groups.setdefault("" if setting is None else setting.amount.quantity, []).append(i)
        for indices in groups.values():
            for start in range(0, len(indices), self._batch_size):
                yield indices[start : start + self._batch_size]

    def _complete(self, specs: Sequence[CompletionSpec]) -> list[Result]:
        """One batch, generated and judged."""
        keys = self.keys(specs)
        self._report_progress(specs[0])
        is_new = not all(map(self._has, keys))
        if is_new:
            batch = self._with_steerers(specs)  # fits are not part of the time
            started = time.perf_counter()
            completions = complete_batch(self._lm, batch, self._scorer)
            self._save(specs, keys, completions, time.perf_counter() - started)
        records = [self._generations[key] for key in keys]
        started = time.perf_counter()
        scores = self._judge(specs, keys, records)
        self._seconds += time.perf_counter() - started if is_new else 0.0
        self._done += len(specs)
        self._report_progress(specs[0])
        return [
            Result(spec, {name: value for name, value in record.items() if name != "key"}, one)
            for spec, record, one in zip(specs, records, scores, strict=True)
        ]

    def _save(
        self,
        specs: Sequence[CompletionSpec],
        keys: Sequence[str],
        completions: Sequence[Completion],
        seconds: float,
    ) -> None:
        pairs = zip(keys, completions, strict=True)
        self._generations.append({"key": key, **one} for key, one in pairs)
        self._generated += len(specs)
        self._seconds += seconds
        self._save_time(specs, completions, seconds)

    def _judge(
        self,
        specs: Sequence[CompletionSpec],
        keys: Sequence[str],
        completions: Sequence[Mapping[str, Any]],
    ) -> list[Scores]:
        """Scores by all judges of the task, from the store where they are there."""
        found: list[Scores] = [{} for _ in specs]
        task = specs[0].task
        for name in self._judges.of(task):
            score_keys = [f"{key}/{self._judges.tag(name)}" for key in keys]
            if any(key not in self._scores for key in score_keys):
                missing = dict.fromkeys(self._judges.metrics(name))
                scores = self._judge_by(name, specs, completions, missing)
                if scores is None:
                    # Not stored, so that the next run asks the judge again.
                    for one, key in zip(found, score_keys, strict=True):
                        one |= self._scores[key]["scores"] if key in self._scores else missing
                    continue
                pairs = zip(score_keys, scores, strict=True)
                self._scores.append({"key": key, "scores": one} for key, one in pairs)
            for one, key in zip(found, score_keys, strict=True):
                one |= self._scores[key]["scores"]
        for one in found:
            one |= task.derived(one)
        return found

    def _judge_by(
        self,
        name: str,
        specs: Sequence[CompletionSpec],
        completions: Sequence[Mapping[str, Any]],
        missing: Scores,
    ) -> list[Scores] | None:
        """Scores by one judge, missing for failed completions; None if the judge failed."""
        present = [i for i, one in enumerate(completions) if "failed" not in one]
        judged = self._judges.judge(
            name, [specs[i].item for i in present], [completions[i] for i in present]
        )
        if judged is None:
            return None
        scores = [dict(missing) for _ in specs]
        for i, one in zip(present, judged, strict=True):
            scores[i] = one
        return scores

    def _with_steerers(self, specs: Sequence[CompletionSpec]) -> CompletionBatch:
        """A batch with its fitted steerers, or the errors of their fits."""
        steerers: list[Any] = []
        for spec in specs:
            try:
                steerers.append(self._fits.steerer(spec))
            except FAILURES as error:
                steerers.append(error)
        return CompletionBatch(specs, steerers)

    def _report_progress(self, spec: CompletionSpec) -> None:
        what = "choosing settings" if spec.phase == "validation" else spec.contender.name
        self._task = spec.task.name
        self._report_activity(what)

    def _report_activity(self, what: str) -> None:
        if self._on_progress is None:
            return
        seconds_left = None
        if self._generated:
            seconds_left = self._seconds / self._generated * max(self._total - self._done, 0)
        activity = f"{self._task}, {what}"
        total = max(self._total, self._done)
        self._on_progress(BenchmarkProgress(self._done, total, seconds_left, activity))

    def _save_time(
        self, specs: Sequence[CompletionSpec], completions: Sequence[Completion], seconds: float
    ) -> None:
        """Append to the file of times, which differ between runs where results do not.

        Only batches of test items hold a single contender.
        """
        if specs[0].phase != "test":
            return
        record = {
            "task": specs[0].task.name,
            "contender": specs[0].contender.name,
            "completions": len(specs),
            "tokens": sum(int(one.get("tokens", 0)) for one in completions),
            "seconds": seconds,
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


def _steerer_order(spec: CompletionSpec) -> tuple[Any, ...]:
    """Sort key that puts specs of one steerer side by side."""
    setting = spec.setting
    steerer = () if setting is None else (setting.candidate, setting.layer)
    return spec.contender.name, steerer, spec.fold.name, spec.seed
