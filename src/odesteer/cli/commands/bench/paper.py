"""``odesteer bench --paper``: a table or figure of arXiv 2602.17560 beside the published one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from odesteer.cli.commands.bench.report import progress
from odesteer.cli.errors import checking_usage
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.evaluation.paper.completions import Stored, Work
    from odesteer.evaluation.paper.estimate import RunEstimate
    from odesteer.evaluation.paper.experiments import Experiment, Question, Row
    from odesteer.evaluation.paper.judging import JudgeChoice
    from odesteer.evaluation.paper.models import Architecture, PaperModel
    from odesteer.evaluation.paper.placement import Placement
    from odesteer.evaluation.paper.results import Line
    from odesteer.evaluation.task import Fold, Task
    from odesteer.models import SteeredModel


@dataclass(frozen=True)
class PaperOptions:
    """The options of the command line, read.

    Attributes:
        paper: key of the paper's model.
        table, figure: which; table 2 by default.
        tasks: names; all that the experiment has by default.
        choice: the model that is run; the paper's own by default.
        folder: for the results.
        data: file or folder with the data of the tasks.
        layer, lengths: instead of the paper's.
        seeds, limit, fit_limit: of runs, of items in each fold, of examples or questions to fit on.
        judges, judge_options, perplexity_model: instead of the paper's.
        batch_size: to begin with; found by default.
        dry_run: plan only; judges are not looked for.
    """

    paper: str
    table: int | None
    figure: int | None
    tasks: tuple[str, ...]
    choice: ModelChoice
    folder: Path
    data: Path | None = None
    layer: int | None = None
    lengths: tuple[float, ...] | None = None
    seeds: tuple[int, ...] | None = None
    limit: int | None = None
    fit_limit: int | None = None
    judges: tuple[str, ...] | None = None
    judge_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    perplexity_model: str | None = None
    batch_size: int | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class PaperTask:
    """A task of the run with its rows, data and judges."""

    task: "Task"
    question: "Question"
    rows: "list[Row]"
    folds: "dict[int, list[Fold]]"
    works: "list[Work]"
    judges: "list[JudgeChoice]"
    estimate: "RunEstimate"


@dataclass(frozen=True)
class PaperOutcome:
    """What a run found: lines by task, what to know about them, the files of the report."""

    tables: "dict[str, list[Line]]"
    notes: list[str]
    files: list[Path]
    seconds: float


class PaperRun:
    """A run of one experiment: the plan first, then completions, then judges."""

    def __init__(self, screen: Screen, options: PaperOptions) -> None:
        with checking_usage():
            from odesteer.evaluation.paper.experiments import experiment
            from odesteer.evaluation.paper.models import paper_model

            self.model: PaperModel = paper_model(options.paper)
            self.experiment: Experiment = experiment(options.table, options.figure)
        self._screen = screen
        name = options.choice.name
        self.is_substitute = name is not None and name != self.model.hub
        if name is None:
            options = replace(options, choice=replace(options.choice, name=self.model.hub))
        self.options = options
        self.architecture: Architecture = (
            self._outline() if self.is_substitute else self.model.architecture
        )
        from odesteer.evaluation.paper.placement import placement

        self.placement: Placement = placement(
            self.architecture, options.choice.device, options.choice.dtype
        )
        self.tasks: list[PaperTask] = self._tasks()

    @property
    def folder(self) -> Path:
        """For the results."""
        return self.options.folder

    def run(self) -> "PaperOutcome":
        """Run what is not in the folder yet, and write the report."""
        from odesteer.evaluation.paper.judging import release_memory, score
        from odesteer.evaluation.paper.report import write
        from odesteer.evaluation.paper.results import lines, speeds

        screen, experiment, folder = self._screen, self.experiment, self.options.folder
        began = perf_counter()
        stored: dict[str, Stored] = {}
        tables: dict[str, list[Line]] = {}
        notes = self._notes()
        lm = self._open()
        if experiment.kind in ("trajectories", "harness"):
            tables[self.tasks[0].task.name] = self._without_completions(lm, notes)
        else:
            for each in self.tasks:
                stored[each.task.name] = self._complete(lm, each)
        # Judges get the memory of the model.
        del lm
        release_memory()
        for each in self.tasks if stored else ():
            name = each.task.name
            found = stored[name]
            notes += [f"{name}: {reason}" for reason in found.failures()]
            if found.left_out:
                notes.append(
                    f"{name}: {found.left_out} texts are longer than the context, left out"
                )
            if experiment.kind == "speed":
                tables[name] = speeds(self.model.key, each.rows, found)
                continue
            with progress(screen) as on_progress:
                scores = score(found, each.judges, folder, on_progress=_reporter(on_progress))
            tables[name] = lines(experiment, self.model.key, each.task, found, scores)
            lost = {*experiment.metrics_of(name)} - {line.metric for line in tables[name]}
            if lost:
                notes.append(f"{name}: no judge scores {', '.join(sorted(lost))}")
        files = write(experiment, tables, self._about(), notes, folder)
        return PaperOutcome(tables, notes, files, perf_counter() - began)

    def _tasks(self) -> list[PaperTask]:
        from odesteer.evaluation.config import with_data_of_judges
        from odesteer.evaluation.paper.completions import folds_of, work_of
        from odesteer.evaluation.paper.estimate import estimate
        from odesteer.evaluation.paper.judging import judges_of
        from odesteer.evaluation.paper.protocol import SEEDS, question, task_of, tasks_of

        options, experiment = self.options, self.experiment
        found = []
        with checking_usage():
            names = tasks_of(experiment, options.tasks)
        for name in names:
            with checking_usage():
                asked = question(
                    self.model,
                    name,
                    self.architecture.layers,
                    options.layer,
                    options.lengths,
                    self.is_substitute,
                )
            task = task_of(name, options.data, options.fit_limit)
            seeds = options.seeds or SEEDS
            if experiment.kind != "completions":
                seeds = seeds[:1]
            folds = folds_of(task, seeds, _least(options.limit, experiment.items))
            rows = experiment.rows(asked)
            works = (
                []
                if experiment.kind in ("trajectories", "harness")
                else work_of(experiment, task, rows, folds)
            )
            judges: list[JudgeChoice] = []
            if experiment.kind == "completions":
                judges = judges_of(
                    task,
                    options.judges,
                    with_data_of_judges(options.judge_options, options.data),
                    options.perplexity_model,
                    (task.headline, *experiment.metrics),
                    check=not options.dry_run,
                )
            cost = estimate(
                task,
                rows,
                works,
                folds,
                [judge.name for judge in judges],
                self.architecture,
                # Without a GPU here the estimate is for one elsewhere, in half precision.
                "bfloat16" if self.placement.device == "cpu" else self.placement.dtype,
                options.batch_size,
            )
            found.append(PaperTask(task, asked, rows, folds, works, judges, cost))
        return found

    def _outline(self) -> "Architecture":
        from odesteer.evaluation.paper.placement import architecture_of
        from odesteer.models.architecture.loading import load_outline

        choice = self.options.choice
        model, _ = load_outline(choice.source, revision=choice.revision)
        return architecture_of(model, model.config)

    def _open(self) -> "SteeredModel":
        from odesteer.cli.model.opening import quiet_libraries
        from odesteer.models import SteeredModel

        choice = self.options.choice
        with quiet_libraries(bars=self._screen.is_interactive):
            return SteeredModel.from_pretrained(
                choice.source, revision=choice.revision, **self.placement.options
            )

    def _complete(self, lm: "SteeredModel", each: PaperTask) -> "Stored":
        from odesteer.evaluation.paper.completions import complete

        size = self.options.batch_size
        if size is None:
            size = each.estimate.batch_size if lm.device.type == "cuda" else 16
        with progress(self._screen) as on_progress:
            return complete(
                lm,
                self.experiment,
                each.task,
                each.rows,
                each.folds,
                self.options.folder,
                size,
                _reporter(on_progress),
            )

    def _without_completions(self, lm: "SteeredModel", notes: list[str]) -> "list[Line]":
        from odesteer.evaluation.paper.capabilities import capabilities, command
        from odesteer.evaluation.paper.trajectories import barrier_along

        (each,) = self.tasks
        ((seed, folds),) = each.folds.items()
        row = each.rows[-1]
        if self.experiment.kind == "trajectories":
            notes.append(
                "± is the standard deviation over trajectories; n of each line in"
                " paper.json counts those along which h rose in every step so far"
            )
            return barrier_along(lm, each.task, row, folds[0], folds[-1], seed)
        setting = row.settings[0]
        method = row.contender.method(setting).with_seed(seed)
        steerer = lm.fit(
            method,
            folds[0].fit,
            setting.layer,
            position=each.task.capture_position,  # type: ignore[call-overload]
        )
        path = self.options.folder / "truthful.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        steerer.save(path)
        from odesteer.evaluation.paper.capabilities import HARNESS_TASKS

        notes.append(
            "the same by hand: "
            + command(str(self.options.choice.name), path, setting.amount, HARNESS_TASKS)
        )
        notes.append("± of measured figures is the standard error of lm-eval")
        return capabilities(
            lm,
            steerer,
            setting.amount,
            self.model.key,
            limit=self.options.limit,
            batch_size=self.options.batch_size or 8,
        )

    def _notes(self) -> list[str]:
        from odesteer.evaluation.paper.protocol import DEVIATIONS

        options, found = self.options, []
        if self.is_substitute:
            found.append(
                f"{options.choice.name} stands in the place of {self.model.hub}: published figures"
                " are of another model"
            )
        if options.judges is not None:
            found.append(f"judged by {', '.join(options.judges)} instead of the paper's judges")
        if options.limit is not None:
            found.append(f"at most {options.limit} items of each fold")
        if options.fit_limit is not None:
            found.append(f"fitted on at most {options.fit_limit} questions or examples")
        for each in self.tasks:
            found += [f"{each.task.name}: {text}" for text in DEVIATIONS[each.task.name]]
        if any(len(row.settings) > 1 for each in self.tasks for row in each.rows):
            found.append("of several T the best on validation items is reported")
        return found

    def _about(self) -> dict[str, Any]:
        from odesteer.evaluation.report.writer import environment

        options = self.options
        return {
            "paper_model": self.model.key,
            "model": Path(str(options.choice.name)).name if self.is_substitute else self.model.hub,
            "placement": str(self.placement),
            "layers": {each.task.name: each.question.layer for each in self.tasks},
            "T": {each.task.name: list(each.question.lengths) for each in self.tasks},
            "seeds": sorted({seed for each in self.tasks for seed in each.folds}),
            "judges": {each.task.name: [j.name for j in each.judges] for each in self.tasks},
            "environment": environment(),
        }


def _reporter(on_progress: Any) -> Any:
    """Progress of `BenchmarkProgress` from numbers, with the time left at the pace so far."""
    from odesteer.evaluation.runner import BenchmarkProgress

    began, first = perf_counter(), None

    def report(done: int, total: int, activity: str) -> None:
        nonlocal first
        first = done if first is None else first
        pace = (perf_counter() - began) / (done - first) if done > first else None
        left = None if pace is None else pace * (total - done)
        on_progress(BenchmarkProgress(done, total, left, activity))

    return report


def _least(one: int | None, other: int | None) -> int | None:
    known = [each for each in (one, other) if each is not None]
    return min(known) if known else None
