"""The judges of a run: those that work here, why others do not, and their scores."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges import Judge, Scores, create
from odesteer.evaluation.judges.perplexity import Perplexity
from odesteer.evaluation.runner.digests import digest
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

    Raises `InvalidInputError` for a judge in ``wanted`` that cannot work here.
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
                names = ("multiple-choice",)
            for name in names:
                if name in self._judges or name in self.unavailable:
                    continue
                judge = self._create(name, lm, given.get(name, {}), perplexity_model, batch_size)
                reason = judge.unavailable()
                if reason is None:
                    self._judges[name] = judge
                elif wanted is None:
                    self.unavailable[name] = reason
                else:
                    raise InvalidInputError(f"the judge {name!r} cannot work here: {reason}")
            self._of[task.name] = [name for name in names if name in self._judges]
            self._check_metrics(task)
        self._tags = {
            name: digest([name, given.get(name, {}), getattr(judge, "model", None)], 8)
            for name, judge in self._judges.items()
        }

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
        `unavailable` has the reason.
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
            if lm is not None:
                return Perplexity.of_model(lm, batch_size)
        return create(name, **options)


def _rounded(value: float | None) -> float | None:
    """Nine digits, so that stored scores do not depend on rounding; None if not finite."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.9g}")
