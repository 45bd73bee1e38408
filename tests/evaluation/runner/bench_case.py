"""A benchmark on a tiny random model: two folds of questions about numbers, judged exactly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny_models
from odesteer import ContrastData, Example, SteeredModel
from odesteer.evaluation.item import Item
from odesteer.evaluation.report import write_report
from odesteer.evaluation.runner import JudgePanel, LayerRange, Plan, Runner, RunResults, contenders
from odesteer.evaluation.task import Fold, Task

METHODS = ("prompt-only", "odesteer", "one-step", "caa")


class Numbers(Task):
    """Nothing to be good at; judged by how much a text repeats itself."""

    name = "numbers"
    title = "texts that repeat themselves little"
    version = "1"
    source = "made up"
    max_new_tokens = 6
    judges = ("repetition", "diversity")
    headline = "dist-1"
    shots = 1

    def __init__(self, n: int = 8, version: str = "1") -> None:
        self.version = version  # type: ignore[misc]
        self._n = n

    def folds(self, seed: int) -> tuple[Fold, ...]:
        questions = [f"q{i} is" for i in range(4 * self._n)]
        halves = questions[::2], questions[1::2]
        return tuple(self._fold(f"fold {i}", halves[1 - i], halves[i]) for i in range(len(halves)))

    def _fold(self, name: str, known: Sequence[str], asked: Sequence[str]) -> Fold:
        fit, validation = known[8:], known[:8]
        data = ContrastData(
            tuple(Example(q, " up and up") for q in fit),
            tuple(Example(q, " down") for q in fit),
            tuple(fit),
            tuple(fit),
        )
        items = [tuple(Item(q, q, q, {}) for q in part) for part in (validation, asked)]
        return Fold(name, data, *items)


def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


def runner(
    model: SteeredModel,
    folder: Path,
    *,
    task: Task | None = None,
    seeds: Sequence[int] = (0, 1),
    methods: Sequence[str] = METHODS,
    **options: Any,
) -> Runner:
    tasks = [Numbers() if task is None else task]
    quantities = {"odesteer": "level", "one-step": "strength", "caa": "strength"}
    taken = {quantities[name]: (0.1, 0.3) for name in methods if name in quantities}
    rows = contenders(methods, amounts=taken)
    layers = {tasks[0].name: LayerRange((1,), range(4))}
    plan = Plan(tasks, rows, seeds, layers, budget=0.5)
    return Runner(model, plan, JudgePanel(model, tasks), folder, **{"batch_size": 7, **options})


def finish(model: SteeredModel, folder: Path, **options: Any) -> RunResults:
    """Run to the end and write the report."""
    outcome = runner(model, folder, **options).run()
    write_report(outcome, folder, title="numbers", about={})
    return outcome
