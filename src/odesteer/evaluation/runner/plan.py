"""The plan of a benchmark: tasks, contenders, folds, layers, and what it costs to run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.contenders import PROMPT, Contender
from odesteer.evaluation.runner.context_limits import ContextFilter
from odesteer.evaluation.runner.prompt_only import has_instruction
from odesteer.evaluation.task import Fold, Task
from odesteer.tuning import Halving, Search, Setting
from odesteer.tuning.search.grid import coarse_grid

Phase = Literal["validation", "test"]

HALVING = Halving(rungs=3, least=2)
"""Successive halving: settings are measured on a quarter, half and all validation items."""


@dataclass(frozen=True)
class LayerRange:
    """The decoder layers that are searched for one task.

    Attributes:
        first: tried first.
        within: all that may be tried.
        default: of methods that are not tuned; by default the middle one of ``first``.
    """

    first: tuple[int, ...]
    within: tuple[int, ...]
    default: int = -1

    def __post_init__(self) -> None:
        if self.default not in self.within:
            object.__setattr__(self, "default", self.first[len(self.first) // 2])


@dataclass(frozen=True)
class FoldItem:
    """An item of a fold, under a seed.

    Attributes:
        fold: its fold, with the data to fit on.
        seed: of fits and of sampling.
        item: the item.
    """

    fold: Fold
    seed: int
    item: Item


@dataclass(frozen=True)
class CompletionSpec:
    """One completion to generate; without a setting it is not steered."""

    task: Task
    contender: Contender
    phase: Phase
    setting: Setting | None
    fold_item: FoldItem
    sample: int

    @property
    def item(self) -> Item:
        return self.fold_item.item

    @property
    def fold(self) -> Fold:
        return self.fold_item.fold

    @property
    def seed(self) -> int:
        return self.fold_item.seed

    def setting_json(self) -> dict[str, Any]:
        return setting_json(self.contender, self.setting)


def setting_json(contender: Contender, setting: Setting | None) -> dict[str, Any]:
    """A setting as plain data."""
    if setting is None:
        return {"layer": None, "quantity": None, "value": None}
    found = {"layer": setting.layer, "quantity": setting.amount.quantity, "value": setting.value}
    label = contender.candidates[setting.candidate].label
    return {**found, "variant": label} if label else found


Choices = Mapping[tuple[str, str, str], Setting]
"""The chosen setting by task, fold name and contender."""


@dataclass(frozen=True)
class PlanCost:
    """The most work that a plan can take.

    Attributes:
        fits: methods to fit, at most.
        validation: completions of validation items, at most.
        test: completions of test items.
        tokens: of all completions, at most.
    """

    fits: int
    validation: int
    test: int
    tokens: int

    @property
    def completions(self) -> int:
        return self.validation + self.test


class Plan:
    """Everything that a benchmark compares, and the data.

    Parameters:
        tasks: with different names.
        contenders: the rows of the tables.
        seeds: of fits, data and sampling.
        layers: of each task, by its name.
        context_filter: leaves out what is too long for the model; None without a model.
        budget: the most that a setting may cost in fluency, nats a token.
        refinements: how often the neighbours of the best setting are tried.
        n_folds: how many folds of each task; None for all.

    Raises `InvalidInputError` without tasks or seeds, and `DataError` for folds of one name of
    which one validates on what another tests.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        contenders: Sequence[Contender],
        seeds: Sequence[int],
        layers: Mapping[str, LayerRange],
        context_filter: ContextFilter | None = None,
        *,
        budget: float,
        refinements: int = 1,
        n_folds: int | None = None,
    ) -> None:
        if not tasks or not seeds:
            raise InvalidInputError("a benchmark needs a task and a seed.")
        self.tasks = tuple(tasks)
        self.contenders = tuple(contenders)
        self.seeds = tuple(seeds)
        self.layers = dict(layers)
        self.budget = budget
        self.refinements = refinements
        self.folds = {
            (task.name, seed): tuple(
                fold if context_filter is None else context_filter.filtered(task, fold)
                for fold in task.folds(seed)[:n_folds]
            )
            for task in self.tasks
            for seed in self.seeds
        }
        left_out = {} if context_filter is None else context_filter.left_out
        self.left_out = {name: n for name, n in left_out.items() if n}
        for task in self.tasks:
            self._check_folds(task)

    def contenders_of(self, task: Task) -> list[Contender]:
        """The contenders of a task: prompt-only only if it has an instruction and generates."""
        has_prompt_only = has_instruction(task) and task.kind == "generation"
        return [c for c in self.contenders if c.name != PROMPT or has_prompt_only]

    def fold_names(self, task: Task) -> list[str]:
        """Names of the folds. Settings are chosen for each name, over all seeds."""
        named = [fold.name for seed in self.seeds for fold in self.folds[task.name, seed]]
        return list(dict.fromkeys(named))

    def validation(self, task: Task, name: str) -> list[FoldItem]:
        """The validation items of the folds of one name, of all seeds in turn."""
        columns = [
            [FoldItem(fold, seed, item) for item in fold.validation]
            for seed, fold in self._folds(task)
            if fold.name == name
        ]
        return [item for row in zip_longest(*columns) for item in row if item is not None]

    def test(self, task: Task) -> list[FoldItem]:
        """The test items of a task, under all seeds."""
        folds = self._folds(task)
        return [FoldItem(fold, seed, item) for seed, fold in folds for item in fold.test]

    def searches(self, task: Task, name: str) -> dict[Contender, Search]:
        """The search of each contender with more than one setting."""
        layers, n = self.layers[task.name], len(self.validation(task, name))
        return {
            contender: Search(
                contender.candidates,
                n,
                (layers.default,) if contender.all_layers else layers.first,
                (layers.default,) if contender.all_layers else layers.within,
                self.budget,
                HALVING,
                self.refinements,
                contender.default(layers.default),
            )
            for contender in self.contenders_of(task)
            if contender.is_tuned
        }

    def untuned(self, task: Task, name: str) -> dict[tuple[str, str, str], Setting]:
        """The settings of contenders with only one."""
        layer = self.layers[task.name].default
        return {
            (task.name, name, c.name): coarse_grid(c.candidates, [layer])[0]
            for c in self.contenders_of(task)
            if c.kind == "method" and not c.is_tuned
        }

    def max_validation_completions(self, task: Task, name: str) -> int:
        """The most completions that are needed to choose the settings of a fold."""
        searches = self.searches(task, name).values()
        unsteered = len(self.validation(task, name)) if searches else 0
        return (unsteered + sum(search.most for search in searches)) * task.samples

    def test_completions(self, task: Task) -> int:
        """The number of completions of test items."""
        return len(self.test(task)) * len(self.contenders_of(task)) * task.samples

    def cost(self) -> PlanCost:
        """The most work that the plan takes from the beginning."""
        fits = validation = tokens = test = 0
        for task in self.tasks:
            most = sum(
                self.max_validation_completions(task, name) for name in self.fold_names(task)
            )
            validation += most
            test += self.test_completions(task)
            tokens += (most + self.test_completions(task)) * task.max_new_tokens
            fits += self._max_fits(task) * len(list(self._folds(task)))
        return PlanCost(fits, validation, test, tokens)

    def _max_fits(self, task: Task) -> int:
        """Fits for each fold and seed; a refinement tries a layer on either side."""
        layers = self.layers[task.name]
        further = len({*layers.within} - {*layers.first})
        n_layers = len(layers.first) + min(2 * self.refinements, further)
        return sum(
            len(c.candidates) * (n_layers if c.is_tuned else 1) for c in self.contenders_of(task)
        )

    def _folds(self, task: Task) -> Iterator[tuple[int, Fold]]:
        for seed in self.seeds:
            for fold in self.folds[task.name, seed]:
                yield seed, fold

    def _check_folds(self, task: Task) -> None:
        tuned: dict[str, set[str]] = {}
        tested: dict[str, set[str]] = {}
        for _, fold in self._folds(task):
            tuned.setdefault(fold.name, set()).update(i.group for i in fold.validation)
            tested.setdefault(fold.name, set()).update(i.group for i in fold.test)
        for name, groups in tuned.items():
            shared = groups & tested[name]
            if shared:
                raise DataError(
                    f"task {task.name!r}, fold {name!r}: the group {min(shared)!r} is tested under"
                    " one seed and chooses settings under another."
                )
