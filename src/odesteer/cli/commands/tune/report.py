"""Output of ``odesteer tune``: its files, its table on the screen, its progress."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from odesteer.cli.output.screen import Screen
from odesteer.errors import MissingDependencyError
from odesteer.files import write_file

if TYPE_CHECKING:
    from odesteer.tuning import Score, SearchResults, TuningProgress


def save_surface(
    files: dict[str, Path], surface: "SearchResults", document: dict[str, Any], screen: Screen
) -> bool:
    """Write the results and their plot; False if there is no plot for want of matplotlib."""
    from odesteer.tuning import heat_map

    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    write_file(files["surface"], f"{text}\n".encode())
    try:
        write_file(files["plot"], heat_map(surface))
    except MissingDependencyError as error:
        screen.note(f"no plot was drawn: {error}")
        return False
    return True


def no_choice(surface: "SearchResults", path: Path) -> str:
    """The message of a search without an eligible setting."""
    row = surface.least_costly()
    if row is None or row.score is None:
        return f"no setting could be judged; see {path}."
    setting = row.setting
    return (
        f"no setting stays within the budget of {surface.budget:g} nats a token. The least costly,"
        f" layer {setting.layer} at {setting.amount}, costs {row.score.fluency:.3g}: raise"
        f" --budget, or try smaller --amounts. All that was measured is in {path}."
    )


def warn_if_not_better(surface: "SearchResults") -> None:
    """Warn where the choice is within two standard errors of no steering."""
    row = surface.choice
    if row is None or row.score is None:
        return
    rise = row.score.value - surface.unsteered.value
    error = (row.score.value_error**2 + surface.unsteered.value_error**2) ** 0.5
    if not rise > 2 * error:
        warnings.warn(
            f"the best setting is not clearly better than no steering ({row.score.value:.3g}"
            f" against {surface.unsteered.value:.3g}, standard error of the difference at most"
            f" {error:.2g}).",
            stacklevel=2,
        )


def show(screen: Screen, surface: "SearchResults", tested: "tuple[Score, Score] | None") -> None:
    """Print the best setting of each candidate, the choice, and its score on test prompts."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    choice = surface.choice
    if choice is None or choice.score is None:
        return
    table = Table(title=str(surface.about["value"]), title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "layer", "amount", "value", "cost, nats a token"):
        table.add_column(heading, justify="left" if heading in ("", "amount") else "right")
    table.add_row("unsteered", "", "", _with_error(surface.unsteered), "")
    for number, candidate in enumerate(surface.candidates):
        row = surface.best_of(number)
        if row is None or row.score is None:
            table.add_row(candidate.label, "", "none within the budget", "", "")
            continue
        mark = " ←" if row is choice and len(surface.candidates) > 1 else ""
        table.add_row(
            f"{candidate.label}{mark}",
            str(row.setting.layer),
            str(row.setting.amount),
            _with_error(row.score),
            f"{row.score.fluency:+.3f}",
        )
    screen.print(table)
    n_whole = sum(row.state == "measured" for row in surface.rows)
    rows = {
        "choice": f"{surface.candidates[choice.setting.candidate].label},"
        f" layer {choice.setting.layer}, {choice.setting.amount}",
        "settings": f"{len(surface.rows)} tried, {n_whole} of them on all {choice.score.n} prompts",
    }
    if tested is not None:
        rows["on test prompts"] = (
            f"{_with_error(tested[1])}, unsteered {_with_error(tested[0])}, cost"
            f" {tested[1].fluency:+.3f}"
        )
    screen.rows(rows)


def _with_error(score: "Score") -> str:
    return f"{score.value:.3f} ± {score.value_error:.3f}"


def score_json(score: "Score | None") -> dict[str, Any]:
    """A score as plain data."""
    from odesteer.tuning.search.results import plain_score

    return plain_score(score)


@contextmanager
def progress(screen: Screen) -> "Iterator[Callable[[TuningProgress], None]]":
    """Shows progress: a bar with the time left on a terminal, else a line a stage."""
    if screen.is_interactive:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen.err) as bar:
            task = bar.add_task("", total=None)
            yield lambda now: bar.update(
                task, completed=now.done, total=now.total, description=now.activity
            )
        return
    started = perf_counter()
    before, activity, busy, done = started, "", 0.0, 0

    def note(now: "TuningProgress") -> None:
        nonlocal before, activity, busy, done
        moment = perf_counter()
        if now.done > done:  # captures and fits do not count for the time left
            busy += moment - before
        before, done = moment, now.done
        if now.activity != activity:
            activity = now.activity
            left = f", about {busy * (now.total / done - 1):.0f} s left" if done else ""
            screen.note(f"{activity} ({moment - started:.0f} s{left})")

    yield note
