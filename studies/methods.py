"""Every registered method on real activations: displacement, gain of a judge, and time.

    python -m studies.methods [--shared FOLDER] [--json FILE] [--markdown] [--quick]

FOLDER (``../shared``) holds two small pretrained story models under ``models`` and two sets of
contrastive data under ``data``: sentences of stories (happy or sad, unpaired and of unequal
number) and film reviews (each with a counterfactual of the other sentiment). Without the folder
the bundled model and its three worlds take their place.

Examples are split by group: each method is fitted to one part, a judge to the second (a logistic
regression that no method has seen), and all figures are taken on the third. Steered are its
negatives, by each method's own default amount, at the last token:

gain       of the judge, nats: mean of h(a') - h(a); its own AUC stands above the table
own gain   of the method's own barrier, in units of its level 1
share      of the activations that move at all
length     of the displacement of those that do, in mean activation norms
cosine     of their displacement to the mean difference, the direction of CAA
AUC        of the method's own barrier on the third part
fit        seconds, cross-validation and all
per token  microseconds for a token in a batch of 16, the methods timed in turn

Methods on attention heads are fitted to, and judged on, the outputs of the heads of the layer.
"""

import csv
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarks.machine import describe_machine
from benchmarks.timing import interleaved
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from odesteer import ContrastData, Method, SteeredModel, load_contrast
from odesteer.barriers import Barrier, LinearBarrier
from odesteer.errors import ConvergenceError
from odesteer.methods import HeadITI, registry
from odesteer.models.fitting import prepare_method
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.terrarium import model_path, worlds
from studies.tasks import Activations, capture

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = {"stories260K-hf": 3, "TinyStories-656K": 0}
LONGEST_REVIEW = 600  # characters; the models read 512 tokens
BATCH = 16


@dataclass(frozen=True)
class Setting:
    """A model, a layer of it, and the data that steerers are fitted to."""

    name: str
    lm: SteeredModel
    layer: int
    data: ContrastData
    position: CapturePosition = "last"


@dataclass(frozen=True)
class MethodFigures:
    """One method in one setting; None where a figure is not defined."""

    method: str
    setting: str
    amount: str
    gain: float | None = None
    own_gain: float | None = None
    share: float | None = None
    length: float | None = None
    cosine: float | None = None
    auc: float | None = None
    fit_seconds: float | None = None
    microseconds: float | None = None
    judge_auc: float | None = None
    remark: str = ""


def settings(shared: Path, *, quick: bool) -> Iterator[Setting]:
    """Two models on two sets of data, or the bundled one on its worlds."""
    if not (shared / "models").is_dir():
        lm = SteeredModel.from_pretrained(str(model_path()), dtype=torch.float32)
        for world in worlds()[: 1 if quick else None]:
            data = world.contrast("fit", seed=0, n=150 if quick else 600)
            yield Setting(f"bundled, {world.name}", lm, world.layer, data, world.position)
        return
    data = {
        "stories": load_contrast(shared / "data/story-sentiment/sentences.json"),
        "reviews": reviews(shared / "data/cad-imdb/paired"),
    }
    for model, layer in list(MODELS.items())[: 1 if quick else None]:
        lm = SteeredModel.from_pretrained(str(shared / "models" / model))
        for name, contrast in data.items():
            smaller = contrast.split(0.25)[1] if quick else contrast
            yield Setting(f"{model.removesuffix('-hf')}, {name}", lm, layer, smaller)


def reviews(folder: Path) -> ContrastData:
    """Short film reviews, each beside its counterfactual."""
    pairs: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*_paired.tsv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                pairs.setdefault(path.name + row["batch_id"], {})[row["Sentiment"]] = row["Text"]
    short = [
        (pair["Positive"], pair["Negative"])
        for pair in pairs.values()
        if len(pair) == 2 and max(map(len, pair.values())) <= LONGEST_REVIEW
    ]
    return ContrastData.from_texts(*zip(*short, strict=True))


def split_and_capture(setting: Setting, part: str) -> tuple[Activations, Activations, Activations]:
    """Activations to fit to (60 %), to judge by and to measure on (20 % each)."""
    rest, measured = setting.data.split(0.2, seed=1)
    fitted, judging = rest.split(0.25, seed=2)
    return (
        _captured(setting, fitted, part),
        _captured(setting, judging, part),
        _captured(setting, measured, part),
    )


def _captured(setting: Setting, data: ContrastData, part: str) -> Activations:
    layer = setting.layer
    return capture(setting.lm, data, (layer,), setting.position, part=part)[layer]


def measure(setting: Setting, names: list[str]) -> list[MethodFigures]:
    """All methods in one setting."""
    rows, timed = [], {}
    parts: dict[str, tuple[Activations, Activations, Activations]] = {}
    for name in track(names, description=setting.name, console=Console(stderr=True)):
        method = registry.get(name)()
        part = "heads" if isinstance(method, HeadITI) else "residual"
        if part not in parts:
            parts[part] = split_and_capture(setting, part)
        fitted, judging, measured = parts[part]
        method = prepare_method(method, part, setting.lm.n_heads if part == "heads" else None)
        start = time.perf_counter()
        try:
            with quiet():
                method.fit(fitted.positive, fitted.negative, fitted.groups)
        except ConvergenceError as error:
            rows.append(MethodFigures(name, setting.name, "", remark=f"no convergence: {error}"))
            continue
        seconds = time.perf_counter() - start
        judge = LinearBarrier().fit(judging.positive, judging.negative, judging.groups)
        rows.append(figures(name, setting, method, judge, fitted, measured, seconds))
        timed[name] = _steering(method, measured.negative)
    with torch.inference_mode():
        times = interleaved(timed)
    return [
        MethodFigures(**{**asdict(row), "microseconds": 1e6 * times[row.method].median / BATCH})
        if row.method in times
        else row
        for row in rows
    ]


def _steering(method: Method, a: Tensor) -> Callable[[], object]:
    batch = a[torch.arange(BATCH) % len(a)]
    return lambda: method.steer(batch)


def figures(
    name: str,
    setting: Setting,
    method: Method,
    judge: Barrier,
    fitted: Activations,
    measured: Activations,
    seconds: float,
) -> MethodFigures:
    """What a fitted method does to the negatives that it was not fitted to."""
    a = measured.negative
    solution = method.solve(a)
    displacement = solution.state - a
    moved = (displacement != 0).any(dim=1)
    direction = fitted.positive.mean(0) - fitted.negative.mean(0)
    cosine = torch.nn.functional.cosine_similarity(displacement, direction[None], dim=1)
    length = displacement.norm(dim=1) / method.mean_norm_
    barrier = getattr(method, "barrier", None)
    own, auc = None, None
    if barrier is not None:
        rise = float((barrier.value(solution.state) - barrier.value(a)).mean())
        own = rise / barrier.upper_ if barrier.upper_ > 0 else None
        auc = _auc(barrier.value(measured.positive), barrier.value(a))
    short = "" if solution.reached is None else f"{float(solution.reached.double().mean()):.0%}"
    return MethodFigures(
        method=name,
        setting=setting.name,
        amount=str(method.default_amount),
        gain=float((judge.value(solution.state) - judge.value(a)).mean()),
        own_gain=own,
        share=float(moved.double().mean()),
        length=_mean(length[moved]),
        cosine=_mean(cosine[moved]),
        auc=auc,
        fit_seconds=seconds,
        judge_auc=_auc(judge.value(measured.positive), judge.value(a)),
        remark=short and f"{short} at the level",
    )


def _auc(positive: Tensor, negative: Tensor) -> float:
    """The share of pairs in order; ties count half."""
    gap = positive[:, None] - negative
    return float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings about the data, which are the same for every method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


COLUMNS = (
    ("method", "method", ""),
    ("amount", "amount", ""),
    ("gain", "gain, nats", "+.2f"),
    ("own_gain", "own gain, levels", "+.2f"),
    ("share", "share moved", ".2f"),
    ("length", "length, mean norms", ".3f"),
    ("cosine", "cosine to CAA", "+.2f"),
    ("auc", "AUC", ".3f"),
    ("fit_seconds", "fit, s", ".2f"),
    ("microseconds", "per token, µs", ".1f"),
    ("remark", "remark", ""),
)


def title_of(rows: list[MethodFigures]) -> str:
    """The setting, and how good the judge is; gains by a judge that is not say nothing."""
    (known, *_) = [row.judge_auc for row in rows if row.judge_auc is not None] or [math.nan]
    return f"{rows[0].setting}; AUC of the judge {known:.3f}"


def cells(row: MethodFigures) -> list[str]:
    """A row as it is shown; figures that are not defined are a dash."""
    shown = []
    for attribute, _, form in COLUMNS:
        value = getattr(row, attribute)
        undefined = value is None or (isinstance(value, float) and not math.isfinite(value))
        shown.append("–" if undefined else format(value, form))
    return shown


def markdown(rows: list[MethodFigures]) -> str:
    """The rows of one setting as a Markdown table."""
    header = [title for _, title, _ in COLUMNS]
    lines = [header, ["---"] * len(header), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(
    shared: Annotated[Path, typer.Option(help="Folder with models and data sets.")] = SHARED,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    quick: Annotated[bool, typer.Option(help="Little data, to see that it runs.")] = False,
    only: Annotated[str, typer.Option(help="Methods whose name contains this.")] = "",
) -> None:
    """Fit every method and measure what it does."""
    console = Console(width=170)
    machine: dict[str, Any] = describe_machine()
    if not as_markdown:
        console.print(machine)
    names = [name for name in registry if only in name]
    if not names:
        raise typer.BadParameter(f"no method is called like {only!r}", param_hint="--only")
    rows: list[MethodFigures] = []
    with quiet():
        chosen = list(settings(shared, quick=quick))
    for setting in chosen:
        own = measure(setting, names)
        rows += own
        if as_markdown:
            print(f"**{title_of(own)}**\n\n{markdown(own)}")
            continue
        table = Table(title=title_of(own))
        for _, title, _ in COLUMNS:
            table.add_column(title, overflow="fold")
        for row in own:
            table.add_row(*cells(row))
        console.print(table)
    if output is not None:
        document = {"machine": machine, "rows": [asdict(row) for row in rows]}
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
