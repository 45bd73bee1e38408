"""Selecting layer, amount and parameters of methods by an objective."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from odesteer.artifact import Steerer
from odesteer.data import ContrastData
from odesteer.errors import OdesteerError
from odesteer.models import SteeredModel
from odesteer.models.captured_tokens import CapturePosition
from odesteer.tuning.fit_cache import Fits, part_of
from odesteer.tuning.objectives.base import Measurement, Objective
from odesteer.tuning.search.checkpoint import Journal
from odesteer.tuning.search.grid import Candidate, Cell, coarse_layers
from odesteer.tuning.search.results import Surface
from odesteer.tuning.search.search import Ask, Search, check_number
from odesteer.tuning.search.successive_halving import Halving

BUDGET = 0.1
"""Nats a token: a perplexity 1.1 times that of unsteered text."""


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        done, total: measurements of items; the total is an estimate until the last rung.
        doing: what is being done.
    """

    done: int
    total: int
    doing: str


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        surface: all that was measured, with the choice.
        steerer: fitted at the choice on the data that was measured with; None without a choice.
    """

    surface: Surface
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
    progress: Callable[[Progress], None] | None = None,
) -> Tuning:
    """Select layer and amount, and which of ``candidates``, by an objective under a budget.

    Every candidate is fitted on ``data`` at every layer, and every amount measured on a share of
    the items of ``objective``; hopeless settings are given up by the rule of `Halving`. Then cells
    between the best one and its neighbours are measured, ``refinements`` times. Chosen is
    the highest mean value among settings within the budget; the choice is optimistic by
    about a standard error, so report a setting on other data than it was chosen on.

    Args:
        lm: the model.
        data: what steerers are fitted on; nothing that the objective measures on.
        candidates: methods with the amounts to try.
        objective: what is measured.
        layers: decoder layers to begin with; `coarse_layers` by default.
        budget: the largest mean cost in fluency, in the unit of the objective.
        halving: which settings are given up when.
        refinements: how often the neighbourhood of the best setting is measured.
        position, steer_position, seed, batch_size: as in `SteeredModel.fit`.
        journal: a file of what has been measured, from which a search that was ended goes on.
        progress: told how far the search is.

    Raises `InvalidInputError` for requests that make no sense, and what the first setting ended
    with if none could be tried.
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
    measuring = _Measuring(
        Fits(lm, data, position, steer_position, seed, batch_size),
        tuple(candidates),
        objective,
        Journal(journal),
        progress,
    )
    asking = search.run(measuring.unsteered(halving))
    try:
        ask = next(asking)
        while True:
            ask = asking.send({cell: measuring.measured(cell, ask) for cell in measuring.of(ask)})
    except StopIteration as end:
        surface: Surface = end.value
    choice = surface.choice
    return Tuning(surface, None if choice is None else measuring.steerer(choice.cell))


@dataclass
class _Measuring:
    """Answers what a search asks, and tells how far it is."""

    fits: Fits
    candidates: tuple[Candidate, ...]
    objective: Objective
    journal: Journal
    progress: Callable[[Progress], None] | None
    done: int = 0
    total: int = 0

    def unsteered(self, halving: Halving) -> list[Measurement]:
        """What the objective says of the unsteered model."""
        found: list[Measurement] = []
        self.total = self.objective.n_items
        for items in halving.steps(self.objective.n_items):
            self._tell("the unsteered model")
            new = self.objective.measure(None, None, items)
            check_number(new, items)
            found += new
            self.done += len(items)
        self.journal.begin(self.objective.about(), found)
        return found

    def of(self, ask: Ask) -> tuple[Cell, ...]:
        """The settings that are asked for, all their layers captured in one pass."""
        self.total = self.done + ask.left
        layers: dict[str, list[int]] = {}
        for cell in ask.cells:
            part = part_of(self.candidates[cell.candidate].method)
            layers.setdefault(part, []).append(cell.layer)
        for part, numbers in layers.items():
            if self.fits.missing(numbers, part):
                self._tell("capturing activations")
                self.fits.capture(numbers, part)
        return ask.cells

    def measured(self, cell: Cell, ask: Ask) -> Sequence[Measurement] | OdesteerError:
        """What the objective says of a setting, or said before."""
        self._tell(ask.doing)
        self.done += len(ask.items)
        try:
            steerer = self.steerer(cell)
            found = self.journal.found(steerer, cell.amount, ask.items)
            if found is not None:
                return found
            found = list(self.objective.measure(steerer, cell.amount, ask.items))
        except OdesteerError as error:
            return error
        check_number(found, ask.items)
        self.journal.add(steerer, cell.amount, ask.items, found)
        return found

    def steerer(self, cell: Cell) -> Steerer:
        """Fitted as a setting says."""
        return self.fits.fitted(cell.candidate, self.candidates[cell.candidate].method, cell.layer)

    def _tell(self, doing: str) -> None:
        if self.progress is not None:
            self.progress(Progress(self.done, max(self.total, self.done), doing))
