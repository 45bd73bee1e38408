"""Search over settings, coarse to fine: which to measure next, given the measurements so far."""

import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.tuning.objectives.base import Measurement, Score, mean_and_error
from odesteer.tuning.search.grid import Candidate, Setting, coarse_grid, neighbours
from odesteer.tuning.search.results import MEASURED, SearchResults, SettingResult
from odesteer.tuning.search.successive_halving import Halving
from odesteer.untrusted import is_integer

MOST_FINER = 4
"""Settings of one refinement at most: a layer and an amount on either side."""


@dataclass(frozen=True)
class MeasurementRequest:
    """The measurements that a search needs next.

    Attributes:
        settings: each is to be measured on the same items.
        items: numbers of these items.
        activity: the stage of the search, in a few words.
        left: upper bound on the measurements that this stage still needs, these included.
    """

    settings: tuple[Setting, ...]
    items: range
    activity: str
    left: int


Answers = Mapping[Setting, Sequence[Measurement] | OdesteerError]
"""For each setting one measurement an item, or the error that it ended with."""


@dataclass
class Search:
    """Coarse to fine over candidates, layers and amounts, with early stopping of settings.

    `run` is a generator: it yields requests and is sent measurements, so that a caller can run
    several searches at a time.

    Parameters:
        candidates: methods with the amounts to try.
        n_items: how many validation items there are.
        layers: of the coarse grid.
        within: all layers that may be tried.
        budget: the largest mean cost in fluency.
        halving: the rule for stopping settings early.
        refinements: how often the neighbours of the best setting are measured.
        default: a setting that is chosen unless another is better by more than a standard error of
            the paired difference, because the maximum of many noisy means is biased upward.
        about: description of the objective, as plain data.

    Raises `InvalidInputError` for invalid arguments.
    """

    candidates: Sequence[Candidate]
    n_items: int
    layers: Sequence[int]
    within: Collection[int]
    budget: float
    halving: Halving = field(default_factory=Halving)
    refinements: int = 1
    default: Setting | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    _unsteered: Sequence[Measurement] = field(default=(), init=False)
    _measured: dict[Setting, list[Measurement]] = field(default_factory=dict, init=False)
    _states: dict[Setting, str] = field(default_factory=dict, init=False)
    _stages: dict[Setting, int] = field(default_factory=dict, init=False)
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
        """Upper bound on the number of measurements of items."""
        most = self.halving.most(len(self._coarse_grid()), self.halving.steps(self.n_items))
        # The default is always measured on all items.
        further = self.refinements * MOST_FINER + (self.default is not None)
        return most + further * self.n_items

    def run(
        self, unsteered: Sequence[Measurement]
    ) -> Generator[MeasurementRequest, Answers, SearchResults]:
        """Yield requests and return the results; raises the first error if all settings fail.

        ``unsteered`` has one measurement of the unsteered model for each item.
        """
        self._unsteered = unsteered
        yield from self._stage(0, self._coarse_grid())
        if self._error is not None and not any(self._measured.values()):
            raise self._error
        for number in range(1, self.refinements + 1):
            best = next(iter(self._results().eligible), None)
            if best is not None:
                yield from self._stage(
                    number, neighbours(best.setting, list(self._states), self.within)
                )
        return self._results()

    def _coarse_grid(self) -> list[Setting]:
        settings = coarse_grid(self.candidates, self.layers)
        known = self.default is None or self.default in settings
        return settings if known else [self.default, *settings]  # type: ignore[list-item]

    def _stage(
        self, number: int, settings: Sequence[Setting]
    ) -> Generator[MeasurementRequest, Answers, None]:
        """Measure settings rung by rung with early stopping."""
        self._stages.update(dict.fromkeys(settings, number))
        self._measured.update({setting: [] for setting in settings})
        stage = f"refinement {number}" if number else "the coarse grid"
        steps = self.halving.steps(self.n_items)
        left = list(settings)
        for k, items in enumerate(steps):
            if not left:
                return
            activity = f"{stage}, {len(left)} settings on {items.stop} items"
            most = self.halving.most(len(left), steps[k:])
            answers = yield MeasurementRequest(tuple(left), items, activity, most)
            left = [setting for setting in left if self._keep(setting, items, answers[setting])]
            if k + 1 < len(steps):
                left = self._promising(left, items.stop)
        self._states.update(dict.fromkeys(left, MEASURED))

    def _keep(
        self, setting: Setting, items: range, answer: Sequence[Measurement] | OdesteerError
    ) -> bool:
        """Record the measurements; False if the setting ended with an error."""
        if isinstance(answer, OdesteerError):
            self._error = self._error or answer
            self._states[setting] = str(answer)
            self._measured[setting] = []
            return False
        check_number(answer, items)
        self._measured[setting] += answer
        return True

    def _promising(self, left: Sequence[Setting], n: int) -> list[Setting]:
        """The settings, measured on ``n`` items, that are not stopped."""
        # Compare with settings of earlier stages on the same first n items.
        rivals = {c: self._measured[c][:n] for c, s in self._states.items() if s == MEASURED}
        now = {setting: self._measured[setting] for setting in left}
        most = self._results().most_missing
        reasons = self.halving.given_up({**rivals, **now}, self.budget, most)
        if self.default is not None and reasons.get(self.default) == "halved":
            del reasons[self.default]
        self._states.update(
            {setting: reason for setting, reason in reasons.items() if setting in now}
        )
        return [setting for setting in left if setting not in reasons]

    def _results(self) -> SearchResults:
        rows = tuple(
            SettingResult(
                setting,
                Score.of(items) if items else None,
                self._states.get(setting, ""),
                self._stages[setting],
            )
            for setting, items in self._measured.items()
        )
        results = SearchResults(
            tuple(self.candidates),
            rows,
            Score.of(self._unsteered),
            self.budget,
            self.halving,
            self.about,
            self.default,
        )
        best = next(iter(results.eligible), None)
        if best is None or self.default is None or not self._is_better(best.setting, self.default):
            return results
        return results.without_default()

    def _is_better(self, setting: Setting, default: Setting) -> bool:
        """Whether a setting is better than the default by more than a standard error."""
        if not self._measured.get(default):
            return True
        difference, error = mean_and_error(
            a.value - b.value
            for a, b in zip(self._measured[setting], self._measured[default], strict=False)
            if a.value is not None and b.value is not None
        )
        return difference > error


def check_number(found: Sequence[Measurement], items: range) -> None:
    """Raise `InvalidInputError` if there is not one measurement for each item."""
    if len(found) != len(items):
        raise InvalidInputError(
            f"the objective gave {len(found)} measurements of {len(items)} items."
        )
