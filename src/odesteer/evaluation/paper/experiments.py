"""The tables and figures of arXiv 2602.17560 that `odesteer bench --paper` repeats: their rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from odesteer.errors import InvalidInputError
from odesteer.evaluation.paper.models import PaperModel
from odesteer.evaluation.runner.contenders import NONE, Contender
from odesteer.flows import RK4, Euler
from odesteer.methods import (
    CAA,
    HPR,
    ITI,
    Amount,
    LinearAcT,
    Method,
    MiMiC,
    ODESteer,
    OneStep,
    REControl,
    RepE,
    TruthFlow,
)
from odesteer.tuning import Candidate, Setting

Kind = Literal["completions", "speed", "trajectories", "harness"]
Phase = Literal["validation", "test"]

TASKS = ("truthfulqa", "ultrafeedback", "realtoxicityprompts")
_STEPS = (1, 2, 3, 5, 10, 15, 20)
_FRACTIONS = (0.25, 0.5, 0.75, 1.25, 1.5, 2.0)

METRICS: dict[str, tuple[str, ...]] = {
    "truthfulqa": ("true_info", "true", "info"),
    "ultrafeedback": ("win_rate", "reward", "reward-p90"),
    "realtoxicityprompts": ("toxicity", "perplexity", "dist-2"),
}
"""The metrics of table 2, the headline first."""


@dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Attributes:
        name: in the table.
        contender: the method, or no steering.
        settings: none for no steering; one is reported as it is; of several the best on
            validation items is.
        published: name of the row in the paper; "" where it has none.
        point: where on the horizontal axis of a figure.
    """

    name: str
    contender: Contender
    settings: tuple[Setting, ...] = ()
    published: str = ""
    point: float | None = None


@dataclass(frozen=True)
class Question:
    """What the rows of an experiment depend on.

    Attributes:
        model: the model of the paper.
        task: name of the task.
        layer: to steer after.
        n_layers: of the model that is run.
        lengths: the T to choose from.
    """

    model: PaperModel
    task: str
    layer: int
    n_layers: int
    lengths: tuple[float, ...]


@dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Attributes:
        name: such as ``table 2``.
        title: what it shows.
        tasks: those that it has, the default first.
        rows: its rows in a task.
        kind: how it is measured.
        phase: on which items it is reported.
        metrics: instead of those of `METRICS`.
        axis: of a figure, what its points differ in.
        items: the most test items; None for those of the protocol.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    rows: Callable[[Question], list[Row]]
    kind: Kind = "completions"
    phase: Phase = "test"
    metrics: tuple[str, ...] = ()
    axis: str = ""
    items: int | None = None

    @property
    def number(self) -> int:
        return int(self.name.split()[1])

    @property
    def is_figure(self) -> bool:
        return bool(self.axis)

    def metrics_of(self, task: str) -> tuple[str, ...]:
        """Names of the metrics to report, the headline first."""
        return self.metrics or METRICS[task]


def _row(
    name: str,
    published: str,
    method: Method,
    layer: int,
    amounts: Sequence[Amount] = (),
    point: float | None = None,
) -> Row:
    """A method at its own default amount, unless others are given."""
    given = tuple(amounts) or (method.default_amount,)
    values = tuple(float(amount.value) for amount in given)
    candidate = Candidate(name, method, given[0].quantity, values)
    title = (type(method).__doc__ or name).partition("\n")[0].rstrip(".")
    settings = tuple(Setting(0, layer, amount) for amount in given)
    return Row(name, Contender(name, title, candidates=(candidate,)), settings, published, point)


def _lengths(values: Sequence[float]) -> list[Amount]:
    return [Amount("T", value) for value in values]


def _unsteered() -> Row:
    return Row("no steering", Contender(NONE, "no steering", "none"), published="Original")


def _all_methods(q: Question) -> list[Row]:
    """Table 2: strengths of RepE, ITI and ODESteer swept over T, the others' fixed."""
    swept = _lengths(q.lengths)
    return [
        _unsteered(),
        # The component of centred differences: the form of the comparison in the paper.
        _row("repe", "RepE", RepE(centred=True), q.layer, swept),
        _row("iti", "ITI", ITI(), q.layer, swept),
        _row("caa", "CAA", CAA(), q.layer, [Amount("T", 1.0)]),
        _row("mimic", "MiMiC", MiMiC(), q.layer),
        _row("hpr", "HPR", HPR(), q.layer),
        _row("recontrol", "RE-Control", REControl(), q.layer),
        _row("linear-act", "Linear-AcT", LinearAcT(), q.layer),
        _row("truthflow", "TruthFlow", TruthFlow(), q.layer),
        _row("odesteer-paper", "ODESteer", ODESteer.paper(), q.layer, swept),
        _row("odesteer to a level", "", ODESteer(), q.layer),
    ]


def _ablation(q: Question) -> list[Row]:
    swept = _lengths(q.lengths)
    return [
        _unsteered(),
        _row("iti", "ITI", ITI(), q.layer, swept),
        _row("one-step-paper", "OneStep", OneStep.paper(), q.layer, swept),
        _row("odesteer-paper", "ODESteer", ODESteer.paper(), q.layer, swept),
    ]


def _by_length(q: Question) -> list[Row]:
    """T of the paper, and from a quarter of the least to twice the greatest."""
    low, high = min(q.lengths), max(q.lengths)
    around = [low * f for f in _FRACTIONS if f < 1] + [high * f for f in _FRACTIONS if f > 1]
    return [
        _unsteered(),
        *(
            _row(f"T={T:g}", "", ODESteer.paper(), q.layer, [Amount("T", T)], T)
            for T in sorted({*q.lengths, *around})
        ),
    ]


def _by_steps(q: Question) -> list[Row]:
    T = [_middle(q.lengths)]
    rows = [_unsteered()]
    for n in _STEPS:
        method = ODESteer.paper().set_params(solver=Euler(n))
        rows.append(_row(f"{n} steps", "", method, q.layer, _lengths(T), n))
    return rows


def _by_layer(method: Callable[[], Method], swept: bool) -> Callable[[Question], list[Row]]:
    def rows(q: Question) -> list[Row]:
        amount = Amount("T", _middle(q.lengths) if swept else 1.0)
        return [
            _unsteered(),
            *(
                _row(f"layer {layer}", "", method(), layer, [amount], layer)
                for layer in range(q.n_layers)
            ),
        ]

    return rows


def _solvers(q: Question) -> list[Row]:
    swept = _lengths(q.lengths)
    fourth_order = ODESteer.paper().set_params(solver=RK4(10))
    return [
        _unsteered(),
        _row("Euler, 10 steps", "Euler", ODESteer.paper(), q.layer, swept),
        _row("RK4, 10 steps", "RK4", fourth_order, q.layer, swept),
    ]


def _speed(q: Question) -> list[Row]:
    """The rows of table 2, each at one setting."""
    return [
        Row(row.name, row.contender, row.settings[-1:], row.published) for row in _all_methods(q)
    ]


def _steered(q: Question) -> list[Row]:
    middle = _lengths([_middle(q.lengths)])
    return [
        _unsteered(),
        _row("odesteer-paper", "ODESteer", ODESteer.paper(), q.layer, middle),
    ]


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


_TRUTH = ("truthfulqa",)
_DIVERSITY = ("dist-1", "dist-2", "dist-3")

EXPERIMENTS = (
    Experiment("table 2", "all methods in the three tasks", TASKS, _all_methods),
    Experiment("table 3", "a linear barrier, one step, many steps", TASKS, _ablation),
    Experiment(
        "table 5",
        "choice of T on validation items",
        TASKS,
        _by_length,
        phase="validation",
        axis="T",
    ),
    Experiment(
        "table 6",
        "diversity of detoxified continuations",
        ("realtoxicityprompts",),
        _all_methods,
        metrics=_DIVERSITY,
    ),
    Experiment(
        "table 7",
        "speed of generation, 100 questions",
        _TRUTH,
        _speed,
        kind="speed",
        metrics=("tokens_per_second",),
        items=100,
    ),
    Experiment("table 8", "other capabilities, by lm-eval", _TRUTH, _steered, kind="harness"),
    Experiment("table 9", "Euler against Runge-Kutta", _TRUTH, _solvers, metrics=("true_info",)),
    Experiment(
        "figure 2",
        "h along the trajectories of 100 negatives",
        _TRUTH,
        _steered,
        kind="trajectories",
        axis="t / T",
    ),
    Experiment("figure 3", "CAA by layer", _TRUTH, _by_layer(CAA, swept=False), axis="layer"),
    Experiment("figure 4", "ODESteer by number of steps", _TRUTH, _by_steps, axis="steps"),
    Experiment("figure 5", "ODESteer by T", _TRUTH, _by_length, axis="T"),
    Experiment(
        "figure 6",
        "ODESteer by layer",
        _TRUTH,
        _by_layer(ODESteer.paper, swept=True),
        axis="layer",
    ),
)


def experiment(table: int | None = None, figure: int | None = None) -> Experiment:
    """The table or figure of that number; table 2 if none is named.

    Raises `InvalidInputError` for both, and for numbers that the paper does not have.
    """
    if table is not None and figure is not None:
        raise InvalidInputError("name a table or a figure, not both.")
    wanted = f"figure {figure}" if figure is not None else f"table {table or 2}"
    known = {each.name: each for each in EXPERIMENTS}
    if wanted not in known:
        raise InvalidInputError(
            f"there is no command for {wanted} of the paper; there are {', '.join(known)}."
        )
    return known[wanted]
