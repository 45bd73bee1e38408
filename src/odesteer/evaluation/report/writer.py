"""Writes the report of a run: tables, plots, one HTML page, and the environment."""

import json
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from odesteer.errors import DataError, MissingDependencyError
from odesteer.evaluation.metrics import PairedBootstrap
from odesteer.evaluation.report.conclusions import contrasts
from odesteer.evaluation.report.html_page import page
from odesteer.evaluation.report.plots import plots
from odesteer.evaluation.report.summary import SummaryRow, summarize
from odesteer.evaluation.report.tables import as_csv, as_json, as_markdown, curve_csv
from odesteer.evaluation.runner import RunResults
from odesteer.evaluation.runner.digests import digest, item_digest, model_digest
from odesteer.evaluation.runner.pipeline import TIMES
from odesteer.files import replace_file
from odesteer.version import __version__

_PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn",
    "numba", "datasets", "lm-eval", "autorubric",
)  # fmt: skip


FINAL = ("summary.json", "summary.csv", "summary.md", "curve.csv", "items.jsonl")
"""Files that depend on the results alone: the same bytes after any number of resumptions."""


class PlotsWarning(UserWarning):
    """Raised as a warning where plots are left out of a report."""


def write_report(
    run: RunResults,
    folder: Path,
    *,
    title: str,
    about: Mapping[str, Any],
    bootstrap: PairedBootstrap | None = None,
    opening: str = "",
) -> list[SummaryRow]:
    """Write everything but the raw results, which the runner has written; returns the summary.

    ``opening`` is HTML that the page begins with.

    Warns with `PlotsWarning` where matplotlib is not installed. Raises `DataError` if a file
    cannot be written; the results of the run are safe then.
    """
    lines = summarize(run, bootstrap)
    declared = contrasts(run, bootstrap)
    configuration = {**about, "data_digests": data_digests(run)}
    texts = {
        "summary.json": as_json(run, lines, configuration, declared),
        "summary.csv": as_csv(lines),
        "summary.md": as_markdown(run, lines, title, declared),
        "curve.csv": curve_csv(run.curve),
        "items.jsonl": "".join(
            json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
            for result in (*run.validation, *run.results)
        ),
    }
    versions = environment()
    texts["environment.json"] = json.dumps(versions, indent=1) + "\n"
    try:
        images = list(plots(run, lines))
    except MissingDependencyError as error:
        warnings.warn(f"no plots were drawn: {error}", PlotsWarning, stacklevel=2)
        images = []
    times = speeds(folder / TIMES)
    texts["report.html"] = page(
        run,
        lines,
        images,
        title=title,
        about=configuration,
        environment=versions,
        times=times,
        opening=opening,
        declared=declared,
    )
    try:
        for name, text in texts.items():
            replace_file(folder / name, text.encode("utf-8", "backslashreplace"))
        (folder / "plots").mkdir(exist_ok=True)
        for name, _, png in images:
            replace_file(folder / "plots" / name, png)
    except OSError as error:
        raise DataError(
            f"cannot write the report into {folder}: {error.strerror or error}. All results are"
            " safe; give the same command again once that is mended."
        ) from error
    return lines


def data_digests(run: RunResults) -> dict[str, str]:
    """For each task a digest of all that is fitted to, chosen by and reported on."""
    return {
        task.name: digest(
            [
                [
                    fold.name,
                    fold.digest,
                    [item_digest(item) for item in (*fold.validation, *fold.test)],
                ]
                for seed in run.plan.seeds
                for fold in run.plan.folds[task.name, seed]
            ]
        )
        for task in run.plan.tasks
    }


def about_model(lm: Any) -> dict[str, Any]:
    """Name, revision, type and device of a model, and the digest that results are stored under."""
    return {
        "model_revision": getattr(lm, "model_revision", None),
        "model_digest": model_digest(lm),
        "dtype": str(getattr(lm.model, "dtype", None)).removeprefix("torch."),
        "device": str(lm.device),
    }


def speeds(path: Path) -> list[dict[str, Any]]:
    """Completions, seconds and tokens a second of each contender, over all runs in the folder."""
    found: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # killed while writing it
            continue
        name = record["contender"]
        fresh = {"contender": name, "completions": 0, "tokens": 0, "seconds": 0.0}
        total = found.setdefault(name, fresh)
        for figure in ("completions", "tokens", "seconds"):
            total[figure] += record[figure]
    for total in found.values():
        seconds = total["seconds"]
        total["tokens_per_second"] = total["tokens"] / seconds if seconds else 0.0
    return list(found.values())


def environment() -> dict[str, Any]:
    """Versions and the machine, without names of users, hosts or folders.

    It has a file of its own, as tables must not depend on it.
    """
    import torch

    found: dict[str, Any] = {"odesteer": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
