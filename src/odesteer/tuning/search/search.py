"""The search itself: which settings to measure next, given what has been measured."""

import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.tuning.objectives.base import Measurement, Score, mean_and_error
from odesteer.tuning.search.grid import Candidate, Cell, coarse, finer
from odesteer.tuning.search.results import MEASURED, Row, Surface
from odesteer.tuning.search.successive_halving import Halving
from odesteer.untrusted import is_integer

MOST_FINER = 4
"""The most settings of a refinement: a layer and an amount on either side."""


@dataclass(frozen=True)
class Ask:
    """What a search wants to know next.

    Attributes:
        cells: settings, each of which is to be measured on the same items.
        items: numbers of these items.
        doing: what this is part of, in a few words.
        left: the most measurements of items that this stage still needs, with these.
    """

    cells: tuple[Cell, ...]
    items: range
    doing: str
    left: int


Answers = Mapping[Cell, Sequence[Measurement] | OdesteerError]
"""A measurement for each item, or why a setting cannot be measured."""


@dataclass
class Search:
    """Coarse to fine over candidates, layers and amounts, giving up hopeless settings early.

    `run` asks for measurements and is sent them, so that whoever measures may do so for several
    searches at a time.

    Parameters:
        candidates: methods with the amounts to try.
        n_items: how many validation items there are.
        layers: to begin with.
        within: all layers that may be tried.
        budget: the largest mean cost in fluency.
        halving: which settings are given up when.
        refinements: how often the neighbourhood of the best setting is measured.
        default: a setting that is kept unless another is better by more than a standard error of
            the difference, item by item: of many noisy figures the highest is the luckiest.
        about: what measures, as plain data.

    Raises `InvalidInputError` for requests that make no sense.
    """

    candidates: Sequence[Candidate]
    n_items: int
    layers: Sequence[int]
    within: Collection[int]
    budget: float
    halving: Halving = field(default_factory=Halving)
    refinements: int = 1
    default: Cell | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    _unsteered: Sequence[Measurement] = field(default=(), init=False)
    _measured: dict[Cell, list[Measurement]] = field(default_factory=dict, init=False)
    _states: dict[Cell, str] = field(default_factory=dict, init=False)
    _stages: dict[Cell, int] = field(default_factory=dict, init=False)
    _error: OdesteerError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.candidates:
            raise InvalidInputError("there is nothing to tune; give at least one candidate.")
        if math.isnan(self.budget):
            raise InvalidInputError("budget must be a number, not nan.")
        number = self.refinements
        if not is_integer(number, 0):
            raise InvalidInputError(f"refinements must be 0 or more, not {number!r}.")
        if not self.layers:
            raise InvalidInputError("there is no layer to try; give at least one.")
        if self.n_items < 1:
            raise InvalidInputError("the objective has no validation items.")

    @property
    def most(self) -> int:
        """The most measurements of items that it may come to."""
        most = self.halving.most(len(self._coarse()), self.halving.steps(self.n_items))
        # The default is measured on all items whatever else is.
        further = self.refinements * MOST_FINER + (self.default is not None)
        return most + further * self.n_items

    def run(self, unsteered: Sequence[Measurement]) -> Generator[Ask, Answers, Surface]:
        """Ask until it is known what to choose; ends with the first error if all settings fail.

        ``unsteered`` is what was measured of the unsteered model, one for each item.
        """
        self._unsteered = unsteered
        yield from self._stage(0, self._coarse())
        if self._error is not None and not any(self._measured.values()):
            raise self._error
        for number in range(1, self.refinements + 1):
            best = next(iter(self._surface().eligible), None)
            if best is not None:
                yield from self._stage(number, finer(best.cell, list(self._states), self.within))
        return self._surface()

    def _coarse(self) -> list[Cell]:
        cells = coarse(self.candidates, self.layers)
        known = self.default is None or self.default in cells
        return cells if known else [self.default, *cells]  # type: ignore[list-item]

    def _stage(self, number: int, cells: Sequence[Cell]) -> Generator[Ask, Answers, None]:
        """Measure cells rung by rung, giving up hopeless ones."""
        self._stages.update(dict.fromkeys(cells, number))
        self._measured.update({cell: [] for cell in cells})
        what = f"refinement {number}" if number else "the coarse grid"
        steps = self.halving.steps(self.n_items)
        left = list(cells)
        for k, items in enumerate(steps):
            if not left:
                return
            doing = f"{what}, {len(left)} settings on {items.stop} items"
            most = self.halving.most(len(left), steps[k:])
            answers = yield Ask(tuple(left), items, doing, most)
            left = [cell for cell in left if self._keep(cell, items, answers[cell])]
            if k + 1 < len(steps):
                left = self._promising(left, items.stop)
        self._states.update(dict.fromkeys(left, MEASURED))

    def _keep(
        self, cell: Cell, items: range, answer: Sequence[Measurement] | OdesteerError
    ) -> bool:
        """Keep what was measured; False if the setting cannot be measured."""
        if isinstance(answer, OdesteerError):
            self._error = self._error or answer
            self._states[cell] = str(answer)
            self._measured[cell] = []
            return False
        check_number(answer, items)
        self._measured[cell] += answer
        return True

    def _promising(self, left: Sequence[Cell], n: int) -> list[Cell]:
        """Those of the cells, measured on ``n`` items, that are not given up."""
        # Earlier stages measured on more items; what they had after these decides.
        rivals = {c: self._measured[c][:n] for c, s in self._states.items() if s == MEASURED}
        now = {cell: self._measured[cell] for cell in left}
        most = self._surface().most_missing
        reasons = self.halving.given_up({**rivals, **now}, self.budget, most)
        if self.default is not None and reasons.get(self.default) == "halved":
            del reasons[self.default]
        self._states.update({cell: reason for cell, reason in reasons.items() if cell in now})
        return [cell for cell in left if cell not in reasons]

    def _surface(self) -> Surface:
        rows = tuple(
            Row(
                cell,
                Score.of(items) if items else None,
                self._states.get(cell, ""),
                self._stages[cell],
            )
            for cell, items in self._measured.items()
        )
        surface = Surface(
            tuple(self.candidates),
            rows,
            Score.of(self._unsteered),
            self.budget,
            self.halving,
            self.about,
            self.default,
        )
        best = next(iter(surface.eligible), None)
        if best is None or self.default is None or not self._is_better(best.cell, self.default):
            return surface
        return surface.without_default()

    def _is_better(self, cell: Cell, default: Cell) -> bool:
        """Whether a setting is better than the default by more than a standard error."""
        if not self._measured.get(default):
            return True
        difference, error = mean_and_error(
            a.value - b.value
            for a, b in zip(self._measured[cell], self._measured[default], strict=False)
            if a.value is not None and b.value is not None
        )
        return difference > error


def check_number(found: Sequence[Measurement], items: range) -> None:
    """Raise `InvalidInputError` if there is not one measurement for each item."""
    if len(found) != len(items):
        raise InvalidInputError(
            f"the objective gave {len(found)} measurements of {len(items)} items."
        )
