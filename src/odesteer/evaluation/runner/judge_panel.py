"""The judges of a run: those that work here, why others do not, and their scores."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from odesteer.errors import InvalidInputError, ModelError, OdesteerError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges import Judge, Scores, create
from odesteer.evaluation.judges.perplexity import Perplexity
from odesteer.evaluation.runner.digests import digest
from odesteer.evaluation.runner.selection import FLUENCY
from odesteer.evaluation.task import Task
from odesteer.models import SteeredModel


class JudgePanel:
    """The judges of a run, each created once.

    Parameters:
        lm: the model that is steered; None before it is loaded.
        tasks: whose judges are created.
        wanted: names of judges that replace those of every task.
        options: of single judges.
        perplexity_model: for the judge of perplexity; the steered model itself, unsteered, by
            default.
        batch_size: for perplexity under the steered model.

    Attributes:
        unavailable: why judges cannot work here, or failed, by name.

    Raises `InvalidInputError` for a judge in ``wanted`` that cannot work here, and where a task
    would be without its headline metric: a run never goes on without it.
    """

    def __init__(
        self,
        lm: SteeredModel | None,
        tasks: Sequence[Task],
        *,
        wanted: Sequence[str] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        perplexity_model: str | None = None,
        batch_size: int = 16,
    ) -> None:
        self.unavailable: dict[str, str] = {}
        self._judges: dict[str, Judge] = {}
        self._of: dict[str, list[str]] = {}
        given = options or {}
        for task in tasks:
            names = task.judges if wanted is None else tuple(dict.fromkeys(wanted))
            if task.kind == "choice":
                names = task.judges
            for name in names:
                if name in self._judges or name in self.unavailable:
                    continue
                judge = self._create(name, lm, given.get(name, {}), perplexity_model, batch_size)
                reason = judge.unavailable()
                if reason is None:
                    self._judges[name] = judge
                elif wanted is None and not (name == "perplexity" and perplexity_model):
                    self.unavailable[name] = reason
                else:
                    raise InvalidInputError(f"the judge {name!r} cannot work here: {reason}")
            self._of[task.name] = [name for name in names if name in self._judges]
            self._check_metrics(task)
            self._check_headline(task, names)
        self._tags = {
            name: digest(
                [
                    name,
                    given.get(name, {}),
                    getattr(judge, "model", None),
                    judge.version,
                    judge.identity(),
                ],
                8,
            )
            for name, judge in self._judges.items()
        }
        self._needed = {name for task in tasks for name in self.headline_judges(task)}
        self._needed |= {
            name for name, judge in self._judges.items() if FLUENCY in judge.metrics
        }  # without it settings could not be held to the budget

    def headline_judges(self, task: Task) -> list[str]:
        """The judges without whose scores a task has no headline metric."""
        names = self._of[task.name]
        return [
            name for name in names if self._headline(task, [n for n in names if n != name]) is None
        ]

    def is_exact(self, name: str) -> bool:
        """Whether a judge is right by construction."""
        return self._judges[name].is_exact

    def has_fluency(self, task: Task) -> bool:
        """Whether fluency, to which the budget applies, is measured."""
        return any(FLUENCY in self._judges[name].metrics for name in self._of[task.name])

    def _headline(self, task: Task, names: Sequence[str]) -> float | None:
        """What the headline metric would be if these judges scored 0 in everything."""
        zeros: Scores = {metric: 0.0 for name in names for metric in self._judges[name].metrics}
        zeros |= task.derived(zeros)
        return task.combined([zeros]).get(task.headline)

    def _check_headline(self, task: Task, names: Sequence[str]) -> None:
        """Raise `InvalidInputError` if these judges do not give the headline metric."""
        if self._headline(task, self._of[task.name]) is not None:
            return
        reasons = [
            f"the judge {name!r} cannot work here: {self.unavailable[name]}"
            for name in names
            if name in self.unavailable
        ]
        raise InvalidInputError(
            f"task {task.name!r} has no headline metric {task.headline!r} here:"
            f" {' '.join(reasons) or 'none of its judges scores it.'} Or choose other judges with"
            " --judge."
        )

    def _check_metrics(self, task: Task) -> None:
        """Raise `InvalidInputError` if two judges score a metric of the same name."""
        by: dict[str, str] = {}
        for name in self._of[task.name]:
            for metric in self._judges[name].metrics:
                if metric in by:
                    raise InvalidInputError(
                        f"the judges {by[metric]!r} and {name!r} both score {metric!r}; choose one"
                        " of them, and run the other in another output folder."
                    )
                by[metric] = name

    def of(self, task: Task) -> list[str]:
        """Names of the judges of a task that work here."""
        return self._of[task.name]

    def tag(self, name: str) -> str:
        """A judge's part of the keys of scores: its name and a digest of its options."""
        return f"{name}-{self._tags[name]}"

    def judge(
        self, name: str, items: Sequence[Item], completions: Sequence[Mapping[str, Any]]
    ) -> list[Scores] | None:
        """Scores of completions; those that are not finite are missing.

        None if the judge fails: its scores are missing then for the rest of the run, and
        `unavailable` has the reason. Raises `ModelError` if it is a judge of the headline metric
        or of fluency, without which settings cannot be chosen.
        """
        if name in self.unavailable:
            return None
        judge = self._judges[name]
        # The judge of multiple choice gets likelihoods as JSON instead of a text.
        texts = [
            one["text"] if "text" in one else json.dumps(one["likelihoods"]) for one in completions
        ]
        try:
            found = judge.judge(items, texts)
        except OdesteerError as error:
            if name in self._needed:
                raise ModelError(
                    f"the judge {name!r} failed: {error} The run cannot go on without its scores."
                    " All results so far are safe; mend that and give the same command again, or"
                    " choose other judges with --judge."
                ) from error
            self.unavailable[name] = f"it failed: {error}"
            return None
        return [{metric: _rounded(value) for metric, value in one.items()} for one in found]

    def about(self) -> dict[str, Any]:
        """For each judge what it is and its measured quality."""
        return {name: judge.about() for name, judge in sorted(self._judges.items())}

    def metrics(self, name: str) -> tuple[str, ...]:
        """Names of a judge's scores."""
        return self._judges[name].metrics

    def lower_is_better(self) -> set[str]:
        """Metrics of which less is better."""
        return {metric for judge in self._judges.values() for metric in judge.lower_is_better}

    def _create(
        self,
        name: str,
        lm: SteeredModel | None,
        options: Mapping[str, Any],
        perplexity_model: str | None,
        batch_size: int,
    ) -> Judge:
        if name == "perplexity" and "model" not in options:
            if perplexity_model is not None:
                return create(name, **{"model": perplexity_model, **options})
            if set(options) <= {"alone", "batch_size"}:
                return Perplexity.of_model(lm, **{"batch_size": batch_size, **options})
        return create(name, **options)


def _rounded(value: float | None) -> float | None:
    """Nine digits, so that stored scores do not depend on rounding; None if not finite."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.9g}")
