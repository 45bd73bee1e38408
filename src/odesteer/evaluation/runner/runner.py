"""Running a plan: writing, judging, choosing, item by item, so that it can stop anywhere."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odesteer.evaluation.runner.completions import Elsewhere
from odesteer.evaluation.runner.contenders import NONE, Contender
from odesteer.evaluation.runner.judge_panel import Bench
from odesteer.evaluation.runner.pipeline import Completing, Progress, Result
from odesteer.evaluation.runner.plan import Place, Plan, Row
from odesteer.evaluation.runner.selection import Point, Scored, chosen, mark, measurements, points
from odesteer.evaluation.task import Task
from odesteer.models import SteeredModel
from odesteer.tuning import Measurement, MeasurementRequest, SearchResults, Setting


@dataclass
class Outcome:
    """Everything that a finished run has to tell.

    Attributes:
        results: of the test items.
        validation: of the validation items.
        curve: every setting on validation items.
        choices: the settings that are reported, by task, fold and contender.
    """

    plan: Plan
    bench: Bench
    results: list[Result] = field(default_factory=list)
    validation: list[Result] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    choices: dict[tuple[str, str, str], Setting] = field(default_factory=dict)

    def choice(self, task: Task, place: Place, contender: Contender) -> Setting | None:
        """The setting that a contender is reported at."""
        return self.choices.get((task.name, place.fold.name, contender.name))

    def failures(self) -> list[str]:
        """What could not be fitted or written, and why, each once."""
        return list(
            dict.fromkeys(
                f"{r.row.task.name}, {r.row.contender.name}, {r.said}: {r.written['failed']}"
                for r in (*self.validation, *self.results)
                if "failed" in r.written
            )
        )

    def truncated(self) -> dict[str, int]:
        """By task, how many test items lost the beginning of their prompt to the context."""
        found: dict[str, int] = {}
        for result in self.results:
            if result.row.contender.name == NONE and result.written.get("truncated"):
                found[result.row.task.name] = found.get(result.row.task.name, 0) + 1
        return found


class Runner:
    """Runs a plan in a folder, from wherever an earlier run of it stopped.

    Settings are chosen task by task and fold by fold: the searches of all contenders go on side
    by side, so that what they ask for is written in full batches.

    Parameters:
        lm: the model; it is neither changed nor loaded again.
        plan: what to do.
        bench: the judges.
        folder: for the results.
        batch_size: completions at a time. Beyond rounding, results do not depend on it.
        on_progress: told how far the run is.
        elsewhere: writes many batches at once, in other processes.
    """

    def __init__(
        self,
        lm: SteeredModel,
        plan: Plan,
        bench: Bench,
        folder: Path,
        *,
        batch_size: int = 100,
        on_progress: Callable[[Progress], None] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._plan = plan
        self._bench = bench
        self._ahead = 0
        self._completing = Completing(
            lm, bench, folder, batch_size, plan.cost().completions, on_progress, elsewhere
        )

    def run(self) -> Outcome:
        """Do what is left to do. Raises `DataError` if results cannot be written."""
        outcome = Outcome(self._plan, self._bench)
        self._ahead = self._plan.cost().completions
        surfaces: dict[tuple[str, str, str], SearchResults] = {}
        with self._completing as completing:
            for task in self._plan.tasks:
                for name in self._plan.fold_names(task):
                    outcome.choices |= self._plan.untuned(task, name)
                    self._ahead -= self._plan.most_to_choose(task, name)
                    found = self._select(completing, outcome, task, name)
                    surfaces |= found
                    outcome.choices |= {key: chosen(surface) for key, surface in found.items()}
                completing.expect(self._ahead)
                tests = [
                    [
                        Row(task, contender, "test", cell, place, sample)
                        for place in self._plan.test(task)
                        for cell in [outcome.choice(task, place, contender)]
                        for sample in range(task.samples)
                    ]
                    for contender in self._plan.contenders_of(task)
                ]
                completing.write_ahead(tests)
                for rows in tests:
                    outcome.results += completing.finish(rows)
                self._ahead -= self._plan.to_report(task)
                completing.forget()
        outcome.curve = points((r.row, scores) for r, scores in per_item(outcome.validation))
        mark(outcome.curve, surfaces)
        return outcome

    def _select(
        self, completing: Completing, outcome: Outcome, task: Task, name: str
    ) -> dict[tuple[str, str, str], SearchResults]:
        """What the searches of one fold, over all seeds, come to."""
        searches = self._plan.searches(task, name)
        if not searches:
            return {}
        places = self._plan.validation(task, name)
        less = task.headline in {*task.lower_is_better, *self._bench.lower_is_better()}
        (none,) = (c for c in self._plan.contenders if c.name == NONE)
        written = completing.finish(_rows(task, none, None, places))
        outcome.validation += written
        own = [scores for _, scores in per_item(written)]
        unsteered = measurements(task, own, None, less=less)
        running = {contender: search.run(unsteered) for contender, search in searches.items()}
        asks: dict[Contender, MeasurementRequest] = {
            who: next(asking) for who, asking in running.items()
        }
        surfaces: dict[tuple[str, str, str], SearchResults] = {}
        while asks:
            here = sum(ask.left for ask in asks.values()) * task.samples
            completing.expect(here + self._ahead)
            results = completing.finish(
                row
                for who, ask in asks.items()
                for cell in ask.settings
                for row in _rows(task, who, cell, [places[i] for i in ask.items])
            )
            outcome.validation += results
            scored: dict[tuple[Contender, Setting | None], list[Scored]] = {}
            for result, scores in per_item(results):
                scored.setdefault((result.row.contender, result.row.cell), []).append(scores)
            further: dict[Contender, MeasurementRequest] = {}
            for who, ask in asks.items():
                base = [own[i] for i in ask.items]
                answers: dict[Setting, list[Measurement]] = {
                    cell: measurements(task, scored[who, cell], base, less=less)
                    for cell in ask.settings
                }
                try:
                    further[who] = running[who].send(answers)
                except StopIteration as end:
                    surfaces[task.name, name, who.name] = end.value
            asks = further
        return surfaces


def _rows(
    task: Task, contender: Contender, cell: Setting | None, places: Sequence[Place]
) -> Iterator[Row]:
    for place in places:
        for sample in range(task.samples):
            yield Row(task, contender, "validation", cell, place, sample)


def per_item(results: Iterable[Result]) -> Iterator[tuple[Result, dict[str, float | None]]]:
    """The first result of each item with the metrics of all its samples combined, in order."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        row = result.row
        at = (row.task.name, row.fold.name, row.seed, row.contender.name)
        found.setdefault((*at, row.cell, row.item.key), []).append(result)
    for samples in found.values():
        first = samples[0]
        yield first, first.row.task.combined([sample.scores for sample in samples])
