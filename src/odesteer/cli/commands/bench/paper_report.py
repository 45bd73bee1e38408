"""Screen output of ``odesteer bench --paper``: the plan with its cost, and the tables."""

from typing import TYPE_CHECKING

from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.cli.commands.bench.paper import PaperOutcome, PaperRun


def show_plan_of_paper(screen: Screen, run: "PaperRun") -> None:
    """Print what is run, and what it costs."""
    experiment = run.experiment
    rows = {
        "experiment": f"{experiment.name} of arXiv 2602.17560: {experiment.title}",
        "model": f"{run.options.choice.name}, in the place of {run.model.hub}"
        if run.is_substitute
        else run.model.hub,
        "here": str(run.placement),
    }
    plans = {}
    for each in run.tasks:
        cost, name = each.estimate, each.task.name
        fold = next(iter(each.folds.values()))
        n_fit = ", ".join(str(len(one.fit)) for one in fold)
        lengths = ", ".join(f"{T:g}" for T in each.question.lengths)
        rows[name] = (
            f"layer {each.question.layer}, T of {lengths};"
            f" fitted on {n_fit}; {len(each.rows)} rows, {len(each.folds)} seeds"
        )
        rows[f"  completions of {name}"] = (
            f"{cost.completions:,}, {cost.new_tokens:,.0f} new tokens at most,"
            f" {cost.fits} fits, {cost.batch_size} at a time"
        )
        rows[f"  judges of {name}"] = ", ".join(j.name for j in each.judges) or "none"
        parts = ", ".join(f"{k} {_time(s)}" for k, s in cost.seconds.items())
        rows[f"  time of {name}"] = f"about {_time(cost.total_seconds)}: {parts}"
        memory = ", ".join(f"{k} {v / 1e9:.0f} GB" for k, v in cost.memory.items())
        room = "fits" if cost.does_fit else "does not fit"
        rows[f"  memory of {name}"] = f"{memory}; {room} into {cost.machine.memory / 1e9:.0f} GB"
        plans[name] = {
            "completions": cost.completions,
            "new_tokens": cost.new_tokens,
            "fits": cost.fits,
            "batch_size": cost.batch_size,
            "seconds": cost.seconds,
            "memory_bytes": cost.memory,
        }
    if run.tasks:
        rows["estimated for"] = run.tasks[0].estimate.machine.name
    screen.rows(rows)
    screen.document({"plan": rows, "tasks": plans})


def show_outcome(screen: Screen, run: "PaperRun", outcome: "PaperOutcome") -> None:
    """Print the tables, published figures beside measured ones, and the notes."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from odesteer.evaluation.paper.report import HEADINGS, cells

    name, folder = run.experiment.name, run.options.folder
    for task, own in outcome.tables.items():
        table = Table(title=f"{name}, {task}", title_justify="left", box=SIMPLE_HEAD)
        for heading in HEADINGS:
            table.add_column(heading)
        for line in own:
            table.add_row(*cells(line))
        screen.print(table)
    for note in outcome.notes:
        screen.note(note)
    screen.write(f"Saved in {folder}: {', '.join(path.name for path in outcome.files)}")
    screen.document(
        {
            "experiment": name,
            "model": run.options.choice.name,
            "folder": str(folder),
            "lines": {
                task: [line.to_json() for line in own] for task, own in outcome.tables.items()
            },
            "notes": outcome.notes,
            "seconds": outcome.seconds,
        }
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
