"""Screen output of ``odesteer bench``: the plan, the progress, the headline figures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.evaluation.equal_cost import EqualCostComparison, EqualCostRow
    from odesteer.evaluation.report import SummaryRow
    from odesteer.evaluation.runner import BenchmarkProgress, JudgePanel, Plan, RunResults

_PACE = 40
"""Completions a second of the bundled model on one idle core, judged."""


@contextmanager
def progress(screen: Screen) -> "Iterator[Any]":
    """Shows progress and the time left: a bar on a terminal, else a line a minute."""
    if screen.is_interactive:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        texts = TextColumn("{task.fields[left]}"), TextColumn("{task.description}")
        with Bar(
            BarColumn(), MofNCompleteColumn(), *texts, console=screen.err, transient=True
        ) as bar:
            task = bar.add_task("", total=None, left="")
            yield lambda p: bar.update(
                task, completed=p.done, total=p.total, description=p.activity, left=_time_left(p)
            )
        return
    last = perf_counter()

    def line(now: "BenchmarkProgress") -> None:
        nonlocal last
        if perf_counter() - last >= 60:
            last = perf_counter()
            screen.note(f"{now.done} of about {now.total}, {_time_left(now)}: {now.activity}")

    yield line


def _time_left(now: "BenchmarkProgress") -> str:
    left = now.seconds_left
    if left is None:
        return ""
    return f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left"


def show_plan(
    screen: Screen,
    plan: "Plan",
    judges: "JudgePanel",
    *,
    bundled: bool,
    at_kl: Sequence[float] = (),
) -> None:
    """Print what would be run, and its cost."""
    from odesteer.evaluation.metrics import resolution

    cost = plan.cost()
    rows = {}
    for task in plan.tasks:
        fold = plan.folds[task.name, plan.seeds[0]]
        sizes = "; ".join(
            f"{each.name}: fitted on {len(each.fit)}, {len(each.validation)} to choose by,"
            f" {len(each.test)} to report on"
            for each in fold
        )
        layers = ", ".join(map(str, plan.layers[task.name].first))
        rows[task.name] = f"{task.headline}; layer {layers}; {sizes}"
        n = len({f"{at.fold.name}/{at.item.group}" for at in plan.test(task)})
        rows[f"  {task.name} resolves"] = (
            f"±{100 * resolution(n):.1f} points of a share or win rate, with {n} prompts"
        )
        rows[f"  judges of {task.name}"] = ", ".join(judges.of(task)) or "none can work here"
    rows["rows"] = ", ".join(contender.name for contender in plan.contenders)
    rows["seeds"] = ", ".join(map(str, plan.seeds))
    rows["fits"] = f"at most {cost.fits:,}"
    rows["completions"] = (
        f"at most {cost.completions:,}: {cost.validation:,} to choose settings, {cost.test:,} to"
        " report on"
    )
    rows["tokens"] = f"at most {cost.tokens:,}"
    if at_kl:
        each = sum(map(plan.test_completions, plan.tasks))
        rows["at equal cost"] = (
            f"KL {', '.join(f'{kl:g}' for kl in at_kl)}: {each * len(at_kl):,} completions or"
            " items with choices, and about 8 measurements of cost for each fit"
        )
    if bundled:
        rows["time"] = f"at most {cost.completions / _PACE / 60:.0f} min on one idle core, and fits"
    screen.rows(rows)
    for name, reason in judges.unavailable.items():
        screen.note(f"not judged by {name}: {reason}")
    screen.document(
        {
            "plan": rows,
            "fits": cost.fits,
            "validation_completions": cost.validation,
            "test_completions": cost.test,
            "most_tokens": cost.tokens,
            "unavailable_judges": judges.unavailable,
        }
    )


def show(screen: Screen, outcome: "RunResults", lines: "Sequence[SummaryRow]") -> None:
    """Print a table of the headline figures for each task."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from odesteer.evaluation.report.tables import compared, interval, ordered

    for task in outcome.plan.tasks:
        own = [line for line in lines if line.task == task.name]
        references = compared(own)[:2]  # more columns do not fit
        name = f"{task.headline} (indicative)" if outcome.is_indicative(task) else task.headline
        table = Table(title=f"{task.name}: {name}", title_justify="left", box=SIMPLE_HEAD)
        table.add_column("")
        table.add_column("setting")
        for heading in (task.headline, *(f"− {name}" for name in references)):
            table.add_column(heading, justify="right")
        for line in ordered(outcome, task, own):
            table.add_row(
                line.contender,
                "; ".join(dict.fromkeys(line.settings.values())),
                interval(line.metrics.get(task.headline)),
                *(interval(line.against.get(name), signed=True) for name in references),
            )
        screen.print(table)


def show_equal_cost(
    screen: Screen,
    comparison: "EqualCostComparison",
    plan: "Plan",
    rows: "Sequence[EqualCostRow]",
) -> None:
    """Print the effects at equal cost, a table for each task."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from odesteer.evaluation.equal_cost.report import effects_of, ordered

    targets = comparison.targets
    for task in plan.tasks:
        less = comparison.is_less_better(task)
        title = f"{task.name}: gain in {task.headline} at equal KL to the unsteered model"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("")
        for kl in targets:
            table.add_column(f"{kl:g} nats a token", justify="right")
        own = [row for row in rows if row.task == task.name]
        for row in ordered(own, targets[len(targets) // 2], less_is_better=less):
            table.add_row(row.contender, *effects_of(row, targets))
        screen.print(table)
