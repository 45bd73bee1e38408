"""Runs a plan: generates, judges and chooses settings, resuming from what is on disk."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from odesteer.evaluation.runner.completions import BatchExecutor
from odesteer.evaluation.runner.contenders import NONE, Contender
from odesteer.evaluation.runner.gate import gates_of
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.pipeline import BenchmarkProgress, CompletionPipeline
from odesteer.evaluation.runner.plan import CompletionSpec, FoldItem, Plan
from odesteer.evaluation.runner.results import RunResults, per_item
from odesteer.evaluation.runner.selection import (
    ItemScores,
    chosen,
    mark,
    measurements,
    points,
)
from odesteer.evaluation.task import Task
from odesteer.models import SteeredModel
from odesteer.tuning import Measurement, MeasurementRequest, SearchResults, Setting


class Runner:
    """Runs a plan in a folder, and resumes an earlier run of it there.

    Settings are chosen task by task and fold by fold. The searches of all contenders advance
    together, so that their completions fill whole batches.

    Parameters:
        lm: the model; it is neither changed nor loaded again.
        plan: what to run.
        judges: the judges.
        folder: for the results.
        batch_size: completions at a time. Beyond rounding, results do not depend on it.
        on_progress: called with the progress of the run.
        executor: generates many batches at once, in other processes.
        on_note: called with what a reader must know, such as the gates of judges.
    """

    def __init__(
        self,
        lm: SteeredModel,
        plan: Plan,
        judges: JudgePanel,
        folder: Path,
        *,
        batch_size: int = 100,
        on_progress: Callable[[BenchmarkProgress], None] | None = None,
        executor: BatchExecutor | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._on_note = on_note
        self._judges = judges
        self._n_later = 0  # completions of later folds and tasks, for progress
        self._pipeline = CompletionPipeline(
            lm, judges, folder, batch_size, plan.cost().completions, on_progress, executor
        )

    def run(self) -> RunResults:
        """Run what is not on disk yet. Raises `DataError` if results cannot be written."""
        run = RunResults(self._plan, self._judges)
        self._n_later = self._plan.cost().completions
        searched: dict[tuple[str, str, str], SearchResults] = {}
        with self._pipeline as pipeline:
            self._pass_gates(pipeline, run)
            for task in self._plan.tasks:
                for name in self._plan.fold_names(task):
                    run.choices |= self._plan.untuned(task, name)
                    self._n_later -= self._plan.max_validation_completions(task, name)
                    found = self._select(pipeline, run, task, name)
                    searched |= found
                    run.choices |= {key: chosen(surface) for key, surface in found.items()}
                pipeline.set_remaining(self._n_later)
                tests = [
                    [
                        CompletionSpec(task, contender, "test", setting, item, sample)
                        for item in self._plan.test(task)
                        for setting in [run.choice(task, item, contender)]
                        for sample in range(task.samples)
                    ]
                    for contender in self._plan.contenders_of(task)
                ]
                pipeline.generate_ahead(tests)
                for specs in tests:
                    run.results += pipeline.complete(specs)
                self._n_later -= self._plan.test_completions(task)
                pipeline.clear_fits()
        run.curve = points((r.spec, scores) for r, scores in per_item(run.validation))
        mark(run.curve, searched)
        return run

    def _pass_gates(self, pipeline: CompletionPipeline, run: RunResults) -> None:
        """Measure the judges of all headline metrics before anything is generated."""
        run.gates = gates_of(self._plan, self._judges, pipeline.stored)
        if self._on_note is not None:
            for note in run.notes():
                self._on_note(note)

    def _select(
        self, pipeline: CompletionPipeline, run: RunResults, task: Task, name: str
    ) -> dict[tuple[str, str, str], SearchResults]:
        """The results of the searches of one fold, over all seeds."""
        searches = self._plan.searches(task, name)
        if not searches:
            return {}
        items = self._plan.validation(task, name)
        less = task.headline in {*task.lower_is_better, *self._judges.lower_is_better()}
        (none,) = (c for c in self._plan.contenders if c.name == NONE)
        unsteered_results = pipeline.complete(_validation_specs(task, none, None, items))
        run.validation += unsteered_results
        unsteered_scores = [scores for _, scores in per_item(unsteered_results)]
        unsteered = measurements(task, unsteered_scores, None, less=less)
        running = {contender: search.run(unsteered) for contender, search in searches.items()}
        requests: dict[Contender, MeasurementRequest] = {
            contender: next(asking) for contender, asking in running.items()
        }
        searched: dict[tuple[str, str, str], SearchResults] = {}
        while requests:
            n_now = sum(request.left for request in requests.values()) * task.samples
            pipeline.set_remaining(n_now + self._n_later)
            results = pipeline.complete(
                spec
                for contender, request in requests.items()
                for setting in request.settings
                for spec in _validation_specs(
                    task, contender, setting, [items[i] for i in request.items]
                )
            )
            run.validation += results
            scored: dict[tuple[Contender, Setting | None], list[ItemScores]] = {}
            for result, scores in per_item(results):
                scored.setdefault((result.spec.contender, result.spec.setting), []).append(scores)
            further: dict[Contender, MeasurementRequest] = {}
            for contender, request in requests.items():
                base = [unsteered_scores[i] for i in request.items]
                answers: dict[Setting, list[Measurement]] = {
                    setting: measurements(task, scored[contender, setting], base, less=less)
                    for setting in request.settings
                }
                try:
                    further[contender] = running[contender].send(answers)
                except StopIteration as end:
                    searched[task.name, name, contender.name] = end.value
            requests = further
        return searched


def _validation_specs(
    task: Task, contender: Contender, setting: Setting | None, items: Sequence[FoldItem]
) -> Iterator[CompletionSpec]:
    for item in items:
        for sample in range(task.samples):
            yield CompletionSpec(task, contender, "validation", setting, item, sample)
