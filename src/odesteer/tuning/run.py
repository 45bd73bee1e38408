"""Run a search on a model: fit candidates, measure settings, report progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from odesteer.artifact import Steerer
from odesteer.data import ContrastData
from odesteer.errors import OdesteerError
from odesteer.models import SteeredModel
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.tuning.fit_cache import FitCache, layer_part
from odesteer.tuning.objectives.base import Measurement, Objective
from odesteer.tuning.search.checkpoint import Checkpoint
from odesteer.tuning.search.grid import Candidate, Setting, coarse_layers
from odesteer.tuning.search.results import SearchResults
from odesteer.tuning.search.search import Answers, MeasurementRequest, Search, check_number
from odesteer.tuning.search.successive_halving import Halving

BUDGET = 0.1
"""Nats a token: a perplexity 1.1 times that of unsteered text."""


@dataclass(frozen=True)
class TuningProgress:
    """Progress of a search.

    Attributes:
        done, total: measurements of items; the total is an estimate until the last rung.
        activity: the current step, in a few words.
    """

    done: int
    total: int
    activity: str


@dataclass(frozen=True)
class Tuning:
    """The outcome of `tune`.

    Attributes:
        surface: the results of all settings, with the choice.
        steerer: the one that was measured at the choice; None without a choice.
    """

    surface: SearchResults
    steerer: Steerer | None


def tune(
    lm: SteeredModel,
    data: ContrastData,
    candidates: Sequence[Candidate],
    objective: Objective,
    *,
    layers: Sequence[int] | None = None,
    budget: float = BUDGET,
    halving: Halving | None = None,
    refinements: int = 1,
    position: CapturePosition = "last",
    steer_position: str = "last",
    seed: int = 0,
    batch_size: int = 16,
    journal: Path | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
) -> Tuning:
    """Select layer and amount, and which of ``candidates``, by an objective under a budget.

    Every candidate is fitted on ``data`` at every layer, and every amount measured on a share of
    the items of ``objective``; settings are stopped early by the rule of `Halving`. Then
    settings between the best one and its neighbours are measured, ``refinements`` times. Chosen is
    the highest mean value among settings within the budget; the choice is optimistic by
    about a standard error, so report a setting on other data than it was chosen on.

    Args:
        lm: the model.
        data: what steerers are fitted on; none of it may be what the objective measures on.
        candidates: methods with the amounts to try.
        objective: measures settings.
        layers: decoder layers to begin with; `coarse_layers` by default.
        budget: the largest mean cost in fluency, in the unit of the objective.
        halving: the rule for stopping settings early.
        refinements: how often the neighbours of the best setting are measured.
        position, steer_position, seed, batch_size: as in `SteeredModel.fit`.
        journal: checkpoint file, from which an interrupted search resumes.
        progress: called with the progress before each step.

    Raises `InvalidInputError` for invalid arguments, and the error of the first setting if all
    settings failed.
    """
    chosen = coarse_layers(lm.n_layers) if layers is None else list(dict.fromkeys(layers))
    for layer in chosen:
        lm.layers.at(layer)
    within = range(lm.n_layers)
    if layers is not None:
        within = range(min(chosen, default=0), max(chosen, default=0) + 1)
    halving = Halving() if halving is None else halving
    search = Search(
        tuple(candidates),
        objective.n_items,
        chosen,
        within,
        budget,
        halving,
        refinements,
        about=objective.about(),
    )
    measurer = _Measurer(
        FitCache(lm, data, position, steer_position, seed, batch_size),
        tuple(candidates),
        objective,
        Checkpoint(journal),
        progress,
    )
    requests = search.run(measurer.measure_unsteered(halving))
    try:
        request = next(requests)
        while True:
            request = requests.send(measurer.measure(request))
    except StopIteration as end:
        surface: SearchResults = end.value
    choice = surface.choice
    return Tuning(surface, None if choice is None else measurer.steerer(choice.setting))


@dataclass
class _Measurer:
    """Fits and measures the settings that a search requests, and reports progress."""

    fits: FitCache
    candidates: tuple[Candidate, ...]
    objective: Objective
    checkpoint: Checkpoint
    progress: Callable[[TuningProgress], None] | None
    done: int = 0
    total: int = 0

    def measure_unsteered(self, halving: Halving) -> list[Measurement]:
        """Measure the unsteered model on all items."""
        found: list[Measurement] = []
        self.total = self.objective.n_items
        for items in halving.steps(self.objective.n_items):
            self._report("the unsteered model")
            new = self.objective.measure(None, None, items)
            check_number(new, items)
            found += new
            self.done += len(items)
        self.checkpoint.set_objective(self.objective.about(), found)
        return found

    def measure(self, request: MeasurementRequest) -> Answers:
        """Measure the settings of a request, or read them from the checkpoint."""
        self.total = self.done + request.left
        self._capture(request.settings)
        return {setting: self._measure_setting(setting, request) for setting in request.settings}

    def _capture(self, settings: Sequence[Setting]) -> None:
        """Capture what is missing for these settings, all layers in one pass."""
        layers: dict[str, list[int]] = {}
        for setting in settings:
            part = layer_part(self.candidates[setting.candidate].method)
            layers.setdefault(part, []).append(setting.layer)
        for part, numbers in layers.items():
            if self.fits.missing(numbers, part):
                self._report("capturing activations")
                self.fits.capture(numbers, part)

    def _measure_setting(
        self, setting: Setting, request: MeasurementRequest
    ) -> Sequence[Measurement] | OdesteerError:
        """The measurements of one setting, or the error that it ended with."""
        self._report(request.activity)
        self.done += len(request.items)
        try:
            steerer = self.steerer(setting)
            found = self.checkpoint.get(steerer, setting.amount, request.items)
            if found is not None:
                return found
            found = list(self.objective.measure(steerer, setting.amount, request.items))
        except OdesteerError as error:
            return error
        check_number(found, request.items)
        self.checkpoint.add(steerer, setting.amount, request.items, found)
        return found

    def steerer(self, setting: Setting) -> Steerer:
        """The steerer of a setting, fitted once."""
        method = self.candidates[setting.candidate].method
        return self.fits.fitted(setting.candidate, method, setting.layer)

    def _report(self, activity: str) -> None:
        if self.progress is not None:
            self.progress(TuningProgress(self.done, max(self.total, self.done), activity))
