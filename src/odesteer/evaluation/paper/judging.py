"""Second pass of a run: judges score stored completions, one judge after the other."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odesteer.errors import InvalidInputError
from odesteer.evaluation.judges import Judge, Scores, create
from odesteer.evaluation.paper.completions import Stored
from odesteer.evaluation.runner.digests import digest
from odesteer.evaluation.runner.pipeline import SCORES
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.task import Task

GPT2_XL = "openai-community/gpt2-xl"

PUBLISHED_JUDGES = {
    "truthfulqa": ("truthfulqa-truth", "truthfulqa-info", "perplexity", "diversity"),
    "ultrafeedback": ("reward-model", "perplexity", "diversity"),
    "realtoxicityprompts": ("toxicity-model", "perplexity", "diversity"),
}
"""Those of the paper; a local classifier stands for Perspective."""


@dataclass(frozen=True)
class JudgeChoice:
    """A judge that is not created yet, with its options."""

    name: str
    options: Mapping[str, Any]

    def create(self) -> Judge:
        return create(self.name, **self.options)


def judges_of(
    task: Task,
    wanted: Sequence[str] | None,
    options: Mapping[str, Mapping[str, Any]],
    perplexity_model: str | None,
    needed: Sequence[str],
    *,
    check: bool = True,
) -> list[JudgeChoice]:
    """The judges of a task: those of the paper, or the ``wanted``.

    Raises `InvalidInputError`, before a completion is written, for a judge that cannot work here,
    and if none of them scores a metric that is ``needed``. Without ``check`` only the latter.
    """
    found = []
    scores: Scores = {}
    for name in PUBLISHED_JUDGES[task.name] if wanted is None else dict.fromkeys(wanted):
        given = dict(options.get(name, {}))
        if name == "perplexity":
            given = {"model": perplexity_model or GPT2_XL, "alone": True, **given}
        choice = JudgeChoice(name, given)
        judge = choice.create()
        # Looks for the judge's model, on the hub if need be.
        reason = judge.unavailable() if check else None
        if reason is not None:
            raise InvalidInputError(f"the judge {name!r} cannot work here: {reason}")
        scores |= dict.fromkeys(judge.metrics, 0.0)
        found.append(choice)
    scores |= task.derived(scores)
    for metric in needed:
        if scores.get(metric) is None:
            raise InvalidInputError(
                f"none of the judges {', '.join(choice.name for choice in found) or '(none)'}"
                f" scores {metric!r} of {task.name}; add one with --judge."
            )
    return found


def score(
    stored: Stored,
    judges: Sequence[JudgeChoice],
    folder: Path,
    batch_size: int = 64,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Scores]:
    """The scores of every completion, by its key; those of failed completions are missing.

    Each judge is released before the next one is loaded. Raises what a judge raises; scores that
    are on disk stay, and the next run goes on from there.
    """
    specs: dict[str, CompletionSpec] = {
        key: spec for work, keys in stored.work for spec, key in zip(work.specs, keys, strict=True)
    }
    found: dict[str, Scores] = {key: {} for key in specs}
    total, done = len(specs) * len(judges), 0
    with ResultStore(folder / SCORES) as store:
        for choice in judges:
            name, judge = choice.name, choice.create()
            known_by = [name, judge.about(), judge.version, judge.identity()]
            tag = f"{name}-{digest(known_by, 8)}"
            keys = [key for key in specs if "failed" not in stored.completions[key]]
            missing = [key for key in keys if f"{key}/{tag}" not in store]
            done += len(specs) - len(missing)
            for start in range(0, len(missing), batch_size):
                part = missing[start : start + batch_size]
                on_progress(done, total, f"judged by {name}")
                scored = judge.judge(
                    [specs[key].item for key in part],
                    [stored.completions[key]["text"] for key in part],
                )
                store.append(
                    {"key": f"{key}/{tag}", "scores": one}
                    for key, one in zip(part, scored, strict=True)
                )
                done += len(part)
            for key in specs:
                known = f"{key}/{tag}" in store
                found[key] |= (
                    store[f"{key}/{tag}"]["scores"] if known else dict.fromkeys(judge.metrics)
                )
            del judge
            release_memory()
    for key, one in found.items():
        one |= specs[key].task.derived(one)
    return found


def release_memory() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
