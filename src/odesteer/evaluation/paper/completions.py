"""First pass of a run: every completion of an experiment, stored before any judge is loaded.

The steered model is gone before the judges come, so that one GPU has room for either.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odesteer.evaluation.item import Item
from odesteer.evaluation.paper.experiments import Experiment, Phase, Row
from odesteer.evaluation.runner.completions import FAILURES, CompletionBatch, complete_batch
from odesteer.evaluation.runner.context_limits import ContextFilter
from odesteer.evaluation.runner.digests import completion_keys, model_digest
from odesteer.evaluation.runner.pipeline import GENERATIONS
from odesteer.evaluation.runner.plan import CompletionSpec, FoldItem
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.runner.steerer_cache import SteererCache
from odesteer.evaluation.task import Fold, Task
from odesteer.models import SteeredModel
from odesteer.tuning import Setting


@dataclass(frozen=True)
class Work:
    """The completions of one row at one setting."""

    row: Row
    setting: Setting | None
    phase: Phase
    specs: tuple[CompletionSpec, ...]


@dataclass(frozen=True)
class Stored:
    """Completions that are on disk.

    Attributes:
        work: what they are, with their keys in the store.
        completions: by key.
        seconds, tokens: of what was generated in this run, by the name of the row.
        batch_size: the last one, after those that did not fit into memory.
        left_out: texts that were longer than the model's context.
    """

    work: list[tuple[Work, list[str]]]
    completions: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    tokens: dict[str, int]
    batch_size: int
    left_out: int

    def failures(self) -> list[str]:
        """What could not be fitted or generated, with the reason, each once."""
        found = [
            f"{work.row.name}: {self.completions[key]['failed']}"
            for work, keys in self.work
            for key in keys
            if "failed" in self.completions[key]
        ]
        return list(dict.fromkeys(found))


def folds_of(task: Task, seeds: Sequence[int], limit: int | None) -> dict[int, list[Fold]]:
    """The folds under each seed, with at most ``limit`` test and validation items in each."""
    return {
        seed: [
            Fold(fold.name, fold.fit, fold.validation[:limit], fold.test[:limit])
            for fold in task.folds(seed)
        ]
        for seed in seeds
    }


def work_of(
    experiment: Experiment, task: Task, rows: Sequence[Row], folds: dict[int, list[Fold]]
) -> list[Work]:
    """All completions, row by row: of rows with several settings those of validation items too."""
    found = []
    for row in rows:
        swept = len(row.settings) > 1
        phases: list[Phase] = ["validation", "test"] if swept else [experiment.phase]
        for setting in row.settings or (None,):
            for phase in phases:
                specs = tuple(
                    CompletionSpec(task, row.contender, phase, setting, item, sample)
                    for seed, each in folds.items()
                    for fold in each
                    for item in _items(fold, seed, phase)
                    for sample in range(task.samples)
                )
                found.append(Work(row, setting, phase, specs))
    return found


def complete(
    lm: SteeredModel,
    experiment: Experiment,
    task: Task,
    rows: Sequence[Row],
    folds: dict[int, list[Fold]],
    folder: Path,
    batch_size: int,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Stored:
    """Generate what is not in the folder yet.

    A batch that does not fit into the GPU's memory is halved, and so are all later ones. Raises
    `DataError` if results cannot be written; what is written stays, and the next run goes on from
    there.
    """
    context = ContextFilter(lm)
    filtered = {
        seed: [context.filtered(task, fold) for fold in each] for seed, each in folds.items()
    }
    works = work_of(experiment, task, rows, filtered)
    model = model_digest(lm)
    keyed = [(work, completion_keys(model, work.specs)) for work in works]
    total, done = sum(len(work.specs) for work in works), 0
    fits = SteererCache(lm, min(batch_size, 16))
    seconds: dict[str, float] = {}
    tokens: dict[str, int] = {}
    with ResultStore(folder / GENERATIONS) as store:
        for work, keys in keyed:
            missing = [i for i, key in enumerate(keys) if key not in store]
            done += len(keys) - len(missing)
            fits.prepare(work.specs[i] for i in missing)
            while missing:
                part = missing[:batch_size]
                on_progress(done, total, work.row.name)
                began = time.perf_counter()
                try:
                    found = complete_batch(lm, _with_steerers(fits, [work.specs[i] for i in part]))
                except torch.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    if batch_size == 1:
                        raise
                    batch_size = max(1, batch_size // 2)
                    continue
                took = time.perf_counter() - began
                store.append({"key": keys[i], **one} for i, one in zip(part, found, strict=True))
                name = work.row.name
                seconds[name] = seconds.get(name, 0.0) + took
                tokens[name] = tokens.get(name, 0) + sum(int(c.get("tokens", 0)) for c in found)
                missing = missing[len(part) :]
                done += len(part)
        completions = {key: dict(store[key]) for _, keys in keyed for key in keys}
    n_left_out = sum(context.left_out.values())
    return Stored(keyed, completions, seconds, tokens, batch_size, n_left_out)


def _items(fold: Fold, seed: int, phase: Phase) -> Iterator[FoldItem]:
    items: tuple[Item, ...] = getattr(fold, phase)
    for item in items:
        yield FoldItem(fold, seed, item)


def _with_steerers(fits: SteererCache, specs: Sequence[CompletionSpec]) -> CompletionBatch:
    steerers: list[Any] = []
    for spec in specs:
        try:
            steerers.append(fits.steerer(spec))
        except FAILURES as error:
            steerers.append(error)
    return CompletionBatch(specs, steerers)
