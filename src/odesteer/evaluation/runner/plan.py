"""What a benchmark is going to do, before it does any of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.contenders import PROMPT, Contender
from odesteer.evaluation.runner.context_limits import Room
from odesteer.evaluation.runner.prompt_only import has_baseline
from odesteer.evaluation.task import Fold, Task
from odesteer.tuning import Halving, Search, Setting
from odesteer.tuning.search.grid import coarse_grid

Phase = Literal["validation", "test"]

HALVING = Halving(rungs=3, least=2)
"""Settings are measured on a quarter of the validation items, then a half, then all."""


@dataclass(frozen=True)
class Layers:
    """The decoder layers of one task.

    Attributes:
        first: to begin with.
        within: all that may be tried.
        default: where a method that is not tuned acts; by default the middle one of the first.
    """

    first: tuple[int, ...]
    within: tuple[int, ...]
    default: int = -1

    def __post_init__(self) -> None:
        if self.default not in self.within:
            object.__setattr__(self, "default", self.first[len(self.first) // 2])


@dataclass(frozen=True)
class Place:
    """An item of a fold under a seed.

    Attributes:
        fold: that it belongs to, which says what to fit on.
        seed: of fits and of sampling.
        item: the item.
    """

    fold: Fold
    seed: int
    item: Item


@dataclass(frozen=True)
class Row:
    """One completion to be written; without a cell nothing steers."""

    task: Task
    contender: Contender
    phase: Phase
    cell: Setting | None
    place: Place
    sample: int

    @property
    def item(self) -> Item:
        return self.place.item

    @property
    def fold(self) -> Fold:
        return self.place.fold

    @property
    def seed(self) -> int:
        return self.place.seed

    def cell_json(self) -> dict[str, Any]:
        return cell_json(self.contender, self.cell)


def cell_json(contender: Contender, cell: Setting | None) -> dict[str, Any]:
    """A setting as plain data."""
    if cell is None:
        return {"layer": None, "quantity": None, "value": None}
    found = {"layer": cell.layer, "quantity": cell.amount.quantity, "value": cell.value}
    label = contender.candidates[cell.candidate].label
    return {**found, "variant": label} if label else found


Choices = Mapping[tuple[str, str, str], Setting]
"""The chosen setting by task, fold name and contender."""


@dataclass(frozen=True)
class Cost:
    """What a plan comes to.

    Attributes:
        fits: methods to fit, at most.
        validation: completions to choose settings by, at most.
        test: completions to report on.
        tokens: the most tokens that all of them may have.
    """

    fits: int
    validation: int
    test: int
    tokens: int

    @property
    def completions(self) -> int:
        return self.validation + self.test


class Plan:
    """All that a benchmark compares, on what.

    Parameters:
        tasks: with different names.
        contenders: the rows of the tables.
        seeds: of fits, data and sampling.
        layers: of each task, by its name.
        room: leaves out what is too long for the model; None before there is one.
        budget: what a setting may cost in fluency, nats a token.
        refinements: how often the neighbourhood of the best setting is looked at.

    Raises `InvalidInputError` for nothing to do, and `DataError` for folds of one name of which
    one validates on what another tests.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        contenders: Sequence[Contender],
        seeds: Sequence[int],
        layers: Mapping[str, Layers],
        room: Room | None = None,
        *,
        budget: float,
        refinements: int = 1,
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
                fold if room is None else room.within(task, fold) for fold in task.folds(seed)
            )
            for task in self.tasks
            for seed in self.seeds
        }
        self.left_out = {} if room is None else {k: n for k, n in room.left_out.items() if n}
        for task in self.tasks:
            self._check_folds(task)

    def contenders_of(self, task: Task) -> list[Contender]:
        """Without prompt-only where the task does not say how to ask, or nothing is written."""
        asks = has_baseline(task) and task.kind == "generation"
        return [c for c in self.contenders if c.name != PROMPT or asks]

    def fold_names(self, task: Task) -> list[str]:
        """Of the folds for which settings are chosen, each over all seeds."""
        named = [fold.name for seed in self.seeds for fold in self.folds[task.name, seed]]
        return list(dict.fromkeys(named))

    def validation(self, task: Task, name: str) -> list[Place]:
        """The validation items of the folds of one name, of all seeds in turn."""
        columns = [
            [Place(fold, seed, item) for item in fold.validation]
            for seed, fold in self._folds(task)
            if fold.name == name
        ]
        return [place for row in zip_longest(*columns) for place in row if place is not None]

    def test(self, task: Task) -> list[Place]:
        """The test items of a task, under all seeds."""
        folds = self._folds(task)
        return [Place(fold, seed, item) for seed, fold in folds for item in fold.test]

    def searches(self, task: Task, name: str) -> dict[Contender, Search]:
        """How each contender that has a choice makes it."""
        layers, n = self.layers[task.name], len(self.validation(task, name))
        return {
            contender: Search(
                contender.candidates,
                n,
                layers.first,
                layers.within,
                self.budget,
                HALVING,
                self.refinements,
                contender.default(layers.default),
            )
            for contender in self.contenders_of(task)
            if contender.is_tuned
        }

    def untuned(self, task: Task, name: str) -> dict[tuple[str, str, str], Setting]:
        """The settings of those that have no choice."""
        layer = self.layers[task.name].default
        return {
            (task.name, name, c.name): coarse_grid(c.candidates, [layer])[0]
            for c in self.contenders_of(task)
            if c.kind == "method" and not c.is_tuned
        }

    def most_to_choose(self, task: Task, name: str) -> int:
        """The most completions that choosing the settings of a fold takes."""
        searches = self.searches(task, name).values()
        unsteered = len(self.validation(task, name)) if searches else 0
        return (unsteered + sum(search.most for search in searches)) * task.samples

    def to_report(self, task: Task) -> int:
        """The completions to report on."""
        return len(self.test(task)) * len(self.contenders_of(task)) * task.samples

    def cost(self) -> Cost:
        """What the plan comes to, nothing of it done yet."""
        fits = validation = tokens = test = 0
        for task in self.tasks:
            most = sum(self.most_to_choose(task, name) for name in self.fold_names(task))
            validation += most
            test += self.to_report(task)
            tokens += (most + self.to_report(task)) * task.max_new_tokens
            fits += self._most_fits(task) * len(list(self._folds(task)))
        return Cost(fits, validation, test, tokens)

    def _most_fits(self, task: Task) -> int:
        """For each fold and seed; a refinement tries a layer on either side."""
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
