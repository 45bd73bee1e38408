"""The results of a run: completions with their scores, the curve and the chosen settings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from odesteer.evaluation.judges import Scores
from odesteer.evaluation.runner.contenders import NONE, Contender
from odesteer.evaluation.runner.digests import to_plain
from odesteer.evaluation.runner.gate import JudgeGate
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.plan import CompletionSpec, FoldItem, Plan
from odesteer.evaluation.runner.selection import CurvePoint
from odesteer.evaluation.task import Task
from odesteer.tuning import Setting


@dataclass(frozen=True)
class Result:
    """One completion with its spec and its scores."""

    spec: CompletionSpec
    completion: Mapping[str, Any]
    scores: Scores

    @property
    def setting_text(self) -> str:
        """The setting as text."""
        return self.spec.contender.describe(self.spec.setting)

    def to_json(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "task": spec.task.name,
            "phase": spec.phase,
            "fold": spec.fold.name,
            "seed": spec.seed,
            "contender": spec.contender.name,
            **spec.setting_json(),
            "item": spec.item.key,
            "sample": spec.sample,
            "prompt": to_plain(spec.item.prompt),
            **self.completion,
            "scores": self.scores,
        }


@dataclass
class RunResults:
    """The results of a finished run.

    Attributes:
        results: of the test items.
        validation: of the validation items.
        curve: the means of every setting on validation items.
        choices: the reported settings, by task, fold and contender.
        gates: of the tasks whose headline metric is of judges that may err.
    """

    plan: Plan
    judges: JudgePanel
    results: list[Result] = field(default_factory=list)
    validation: list[Result] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    choices: dict[tuple[str, str, str], Setting] = field(default_factory=dict)
    gates: dict[str, JudgeGate] = field(default_factory=dict)

    def is_indicative(self, task: Task) -> bool:
        """Whether the headline metric of a task is no headline, as its judges failed their gate."""
        gate = self.gates.get(task.name)
        return gate is not None and not gate.passed

    def notes(self) -> list[str]:
        """What a reader of the results must know: gates of judges, and budgets without effect."""
        found = [f"{name}: {gate.text}" for name, gate in self.gates.items()]
        for task in self.plan.tasks:
            tuned = any(contender.is_tuned for contender in self.plan.contenders_of(task))
            if task.kind == "generation" and tuned and not self.judges.has_fluency(task):
                found.append(no_budget(task, self.plan.budget))
        return found

    def choice(self, task: Task, fold_item: FoldItem, contender: Contender) -> Setting | None:
        """The setting at which a contender is reported."""
        return self.choices.get((task.name, fold_item.fold.name, contender.name))

    def failures(self) -> list[str]:
        """What could not be fitted or generated, with the reason, each once."""
        return list(
            dict.fromkeys(
                f"{r.spec.task.name}, {r.spec.contender.name}, {r.setting_text}:"
                f" {r.completion['failed']}"
                for r in (*self.validation, *self.results)
                if "failed" in r.completion
            )
        )

    def truncated(self) -> dict[str, int]:
        """By task, the number of test items whose prompts were cut to fit the context."""
        found: dict[str, int] = {}
        for result in self.results:
            spec = result.spec
            if spec.contender.name == NONE and result.completion.get("truncated"):
                found[spec.task.name] = found.get(spec.task.name, 0) + 1
        return found


def no_budget(task: Task, budget: float) -> str:
    """The warning that the settings of a task are not held to the budget."""
    return (
        f"{task.name}: perplexity is not measured, so that settings are not held to the budget of"
        f" {budget:g} nats a token; add --judge perplexity"
    )


def per_item(results: Iterable[Result]) -> Iterator[tuple[Result, dict[str, float | None]]]:
    """The first result of each item, with the metrics of all its samples combined, in order."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        spec = result.spec
        key = (spec.task.name, spec.fold.name, spec.seed, spec.contender.name)
        found.setdefault((*key, spec.setting, spec.item.key), []).append(result)
    for samples in found.values():
        first = samples[0]
        yield first, first.spec.task.combined([sample.scores for sample in samples])
