"""Configuration of a benchmark run: suite, methods, layers, amounts, judges and budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from odesteer.errors import InvalidInputError
from odesteer.evaluation.judges import create
from odesteer.evaluation.runner import JudgePanel, LayerRange, Plan, contenders
from odesteer.evaluation.runner.context_limits import ContextFilter
from odesteer.evaluation.suites import Sizes, registry
from odesteer.evaluation.suites.base import Suite
from odesteer.evaluation.task import Task
from odesteer.methods import Method
from odesteer.models import SteeredModel

BUDGET = 0.5
"""The most that steering may raise the negative log-likelihood of completions, nats a token."""

_DEPTH = 0.44
"""Relative depth of the default layer: the mean over the layers that the paper chose."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """The configuration of a benchmark run.

    Attributes:
        suite: name of the suite.
        model: what the model is called in reports.
        data: file or folder with the data.
        quick: small sizes and one seed.
        limit: the most validation items, and the most test items, of each fold and seed.
        fit_limit: the most examples, pairs or questions to fit on.
        only_tasks: names of tasks of the suite; None for all.
        folds: how many folds of each task; None for all.
        methods: names of the rows; None for all.
        seeds: how many, or which; None for the suite's.
        layers: tried first; None for the task's own, or one in the middle of the model, and then
            its neighbours.
        every_layer: choose among all layers.
        amounts: tried first, by their quantity; None for the usual ones.
        variants: variants of single methods to choose among, see `contenders`.
        judges: instead of those of the suite.
        judge_options: of single judges.
        perplexity_model: the model for perplexity; None for the steered model itself.
        chat: whether prompts are chats.
        data_options: how the file of the suite contrast is read, see `read_contrast`.
        budget: the most that a setting may cost in fluency, nats a token.
        refinements: how often the neighbours of the best setting are tried.
        at_kl: costs to compare all methods at, KL to the unsteered model in nats a token; empty
            for no such comparison.
        cost_texts: how many neutral prompts the cost is measured on.
        best: whether each method's best setting is chosen and reported as well.

    Raises `UnknownNameError` for suites and methods, `InvalidInputError` for other values.
    """

    suite: str
    model: str
    data: Path | None = None
    quick: bool = False
    limit: int | None = None
    fit_limit: int | None = None
    only_tasks: tuple[str, ...] | None = None
    folds: int | None = None
    methods: tuple[str, ...] | None = None
    seeds: int | tuple[int, ...] | None = None
    layers: tuple[int, ...] | None = None
    every_layer: bool = False
    amounts: Mapping[str, tuple[float, ...]] | None = None
    variants: Mapping[str, Mapping[str, Method]] = field(default_factory=dict)
    judges: tuple[str, ...] | None = None
    judge_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    perplexity_model: str | None = None
    chat: bool = False
    data_options: Mapping[str, Any] = field(default_factory=dict)
    budget: float = BUDGET
    refinements: int = 1
    at_kl: tuple[float, ...] = ()
    cost_texts: int = 40
    best: bool = True

    def __post_init__(self) -> None:
        registry.get(self.suite)
        contenders(self.methods, amounts=self.amounts, variants=self.variants)
        for name in ("limit", "fit_limit", "folds", "seeds"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise InvalidInputError(f"{name} must be at least 1, not {value}.")
        if isinstance(self.seeds, tuple) and (
            not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds)
        ):
            raise InvalidInputError(f"seeds must be different numbers from 0, not {self.seeds}.")
        if not all(0 < kl < math.inf for kl in self.at_kl):
            raise InvalidInputError(f"costs must be positive numbers, not {self.at_kl}.")
        if self.cost_texts < 2:
            raise InvalidInputError(f"cost_texts must be at least 2, not {self.cost_texts}.")
        if not self.at_kl and not self.best:
            raise InvalidInputError("neither costs nor best settings are asked for; choose one.")
        if self.layers is not None and self.every_layer:
            raise InvalidInputError("all layers and some of them were asked for; choose one.")
        if not self.budget >= 0:
            raise InvalidInputError(f"the budget must not be negative, not {self.budget}.")

    def tasks(self) -> tuple[Task, ...]:
        """The tasks, with their data loaded. Raises `DataError` if it is missing."""
        cls: type[Suite] = registry.get(self.suite)
        sizes = cls.quick if self.quick else cls.full
        if self.limit is not None:
            sizes = replace(
                sizes,
                validation=_least(sizes.validation, self.limit),
                test=_least(sizes.test, self.limit),
            )
        if self.fit_limit is not None:
            sizes = replace(sizes, fit=_least(sizes.fit, self.fit_limit))
        suite = cls(Sizes(sizes.fit, sizes.validation, sizes.test), self.data, chat=self.chat)
        suite.data_options = self.data_options
        found = suite.tasks()
        tasks = self._wanted(found)
        for task in tasks:
            self._choose_headline(task)
        return tasks

    def plan(self, tasks: Sequence[Task], n_layers: int, lm: SteeredModel | None = None) -> Plan:
        """The plan for ``n_layers`` layers; with ``lm``, texts that are too long are left out."""
        seeds = self.seeds or (1 if self.quick else 3)
        layers = {task.name: self._layers(task, n_layers) for task in tasks}
        return Plan(
            tasks,
            contenders(self.methods, amounts=self.amounts, variants=self.variants),
            range(seeds) if isinstance(seeds, int) else seeds,
            layers,
            None if lm is None else ContextFilter(lm),
            budget=self.budget,
            refinements=self.refinements,
            n_folds=self.folds,
        )

    def judge_panel(
        self, lm: SteeredModel | None, tasks: Sequence[Task], batch_size: int
    ) -> JudgePanel:
        """The judges of the run."""
        return JudgePanel(
            lm,
            tasks,
            wanted=self.judges,
            options=self._options(),
            perplexity_model=self.perplexity_model,
            batch_size=batch_size,
        )

    def about(self) -> dict[str, Any]:
        """The configuration as JSON data, without folders of this machine."""
        values: dict[str, Any] = {
            "suite": self.suite,
            "model": self.model,
            "data": None if self.data is None else self.data.name,
            "quick": self.quick,
            "limit": self.limit,
            "fit_limit": self.fit_limit,
            "tasks": None if self.only_tasks is None else list(self.only_tasks),
            "folds": self.folds,
            "methods": None if self.methods is None else list(self.methods),
            "seeds": list(self.seeds) if isinstance(self.seeds, tuple) else self.seeds,
            "layers": "all" if self.every_layer else self.layers and list(self.layers),
            "amounts": {name: list(v) for name, v in (self.amounts or {}).items()} or None,
            "variants": {name: list(forms) for name, forms in self.variants.items()} or None,
            "judges": None if self.judges is None else list(self.judges),
            "perplexity_model": self.perplexity_model,
            "chat": self.chat,
            "budget": self.budget,
            "refinements": self.refinements,
            "at_kl": list(self.at_kl) or None,
            "cost_texts": self.cost_texts if self.at_kl else None,
        }
        return {name: value for name, value in values.items() if value not in (None, False)}

    def _choose_headline(self, task: Task) -> None:
        """Make the first metric of the judges that were asked for a task's headline, if they do
        not score its own."""
        if self.judges is None or task.kind == "choice":
            return
        options = self._options()
        names = sorted(self.judges, key=lambda name: name == "perplexity")
        metrics = [m for name in names for m in create(name, **options.get(name, {})).metrics]
        zeros: dict[str, float | None] = dict.fromkeys(metrics, 0.0)
        zeros |= task.derived(zeros)
        if metrics and task.combined([zeros]).get(task.headline) is None:
            task.headline = metrics[0]

    def _wanted(self, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        """The tasks that are asked for. Raises `InvalidInputError` for a name that is none."""
        if self.only_tasks is None:
            return tasks
        known = [task.name for task in tasks]
        for name in self.only_tasks:
            if name not in known:
                raise InvalidInputError(
                    f"the suite {self.suite!r} has no task {name!r}; it has {', '.join(known)}."
                )
        return tuple(task for task in tasks if task.name in self.only_tasks)

    def _layers(self, task: Task, n_layers: int) -> LayerRange:
        every = tuple(range(n_layers))
        own = round(_DEPTH * (n_layers - 1)) if task.layer is None else task.layer
        if self.every_layer:
            return LayerRange(every, every, own)
        if self.layers is None:
            return LayerRange((min(own, n_layers - 1),), every)
        for layer in self.layers:
            if not 0 <= layer < n_layers:
                raise InvalidInputError(
                    f"there is no layer {layer}: the model has {n_layers}, counted from zero."
                )
        named = tuple(sorted(set(self.layers)))
        return LayerRange(named, tuple(range(named[0], named[-1] + 1)), own)

    def _options(self) -> dict[str, Mapping[str, Any]]:
        """Options of judges; small judges are trained on the suite's data by default."""
        return with_data_of_judges(self.judge_options, self.data)


def with_data_of_judges(
    options: Mapping[str, Mapping[str, Any]], data: Path | None
) -> dict[str, Mapping[str, Any]]:
    """Options of judges, with the folder that small judges are trained on beside ``data``."""
    found = dict(options)
    if data is not None:
        root = data if data.is_dir() else data.parent
        if not (root / "truthfulqa").is_dir() and not (root / "paradetox").is_dir():
            root = root.parent
        for name in ("small-truth", "small-info", "small-toxicity", "small-sentiment"):
            found[name] = {"data": str(root), **found.get(name, {})}
    return found


def _least(size: int | None, limit: int) -> int:
    return limit if size is None else min(size, limit)
