"""Judges of a run: which there are, which cannot work here, and what they say."""

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


class OwnPerplexity(Perplexity):
    """Perplexity under the model that is steered, unsteered; it is not loaded a second time."""

    def __init__(self, lm: SteeredModel, batch_size: int) -> None:
        super().__init__(model=lm.model_id or "the model itself", batch_size=batch_size)
        self._lm = lm

    def unavailable(self) -> str | None:
        return None


class Bench:
    """The judges of a run, each opened once, with the reasons why others cannot work here.

    ``wanted`` replaces the judges of every task; ``options`` are those of single judges, and
    ``perplexity_model`` the model that perplexity is measured under, the steered one itself by
    default. Raises `InvalidInputError` for a judge that was asked for and cannot work.
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
                judge = self._made(name, lm, given.get(name, {}), perplexity_model, batch_size)
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
        """Raise `InvalidInputError` for two judges whose scores have one name."""
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
        """Names of the judges of a task that can work."""
        return self._of[task.name]

    def tag(self, name: str) -> str:
        """Of a judge and its options: another judge's scores are never taken for its own."""
        return f"{name}-{self._tags[name]}"

    def judge(
        self, name: str, items: Sequence[Item], written: Sequence[Mapping[str, Any]]
    ) -> list[Scores] | None:
        """Scores of completions. A score that is not finite is missing.

        None where the judge failed: then all that it would have said is missing, now and for the
        rest of the run, and `unavailable` has the reason.
        """
        if name in self.unavailable:
            return None
        judge = self._judges[name]
        # The judge of choices reads their likelihoods where others read a text.
        texts = [
            one["text"] if "text" in one else json.dumps(one["likelihoods"]) for one in written
        ]
        try:
            found = judge.judge(items, texts)
        except OdesteerError as error:
            self.unavailable[name] = f"it failed: {error}"
            return None
        return [{metric: _short(value) for metric, value in one.items()} for one in found]

    def about(self) -> dict[str, Any]:
        """What each judge is and how well it judges."""
        return {name: judge.about() for name, judge in sorted(self._judges.items())}

    def metrics(self, name: str) -> tuple[str, ...]:
        """Names of a judge's scores."""
        return self._judges[name].metrics

    def lower_is_better(self) -> set[str]:
        return {metric for judge in self._judges.values() for metric in judge.lower_is_better}

    def _made(
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
                return OwnPerplexity(lm, batch_size)
        return create(name, **options)


def _short(value: float | None) -> float | None:
    """Nine digits; what differs beyond them is rounding."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.9g}")
