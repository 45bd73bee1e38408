"""The contenders of a benchmark: methods, each with the settings to choose from, and baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount, HeadITI, Method, ODESteer, OneStep, registry
from odesteer.methods.conditional import Conditional
from odesteer.methods.sum import Sum
from odesteer.registry import Registry
from odesteer.tuning import Candidate, Setting

ContenderKind = Literal["none", "prompt", "method"]

NONE, PROMPT, ONE_STEP = "none", "prompt-only", "one-step"
TUNED, DEFAULT = "odesteer", "odesteer-default"
CAA_ROW = "caa"


@dataclass(frozen=True)
class Contender:
    """A row of the result tables.

    Attributes:
        name: of the row.
        title: what it is, a line.
        kind: no steering, prompt-only, or a method.
        candidates: the method with the amounts to choose from, and its variants with other
            parameters if there are any; empty for the baselines.
        all_layers: whether it steers many layers at once, so that none is chosen: `HeadITI`, whose
            heads of all layers compete as in the original.
    """

    name: str
    title: str
    kind: ContenderKind = "method"
    candidates: tuple[Candidate, ...] = ()
    all_layers: bool = False

    @property
    def is_tuned(self) -> bool:
        """Whether its setting is chosen on validation items."""
        return sum(len(candidate.values) for candidate in self.candidates) > 1

    def method(self, setting: Setting) -> Method:
        """The method of a setting, unfitted."""
        return self.candidates[setting.candidate].method

    def default(self, layer: int) -> Setting:
        """The setting that stays unless another is better by more than a standard error.

        Every row has one, so that none of them may take the best of many noisy figures: that of
        the method's default amount, or of the middle amount where that is not among the amounts.
        """
        first = self.candidates[0]
        amount = first.method.default_amount
        if amount.quantity != first.quantity or float(amount.value) not in first.values:
            amount = Amount(first.quantity, first.values[(len(first.values) - 1) // 2])
        return Setting(0, layer, amount)

    def describe(self, setting: Setting | None) -> str:
        """A setting as text."""
        if setting is None:
            return "–"
        label = self.candidates[setting.candidate].label if len(self.candidates) > 1 else ""
        text = f"{setting.amount}, heads of all layers" if self.all_layers else str(setting)
        return f"{text}, {label}" if label else text


def baselines() -> tuple[Contender, ...]:
    """No steering, and prompt-only."""
    return (
        Contender(NONE, "no steering", "none"),
        Contender(PROMPT, "no steering, the behaviour is asked for in the prompt", "prompt"),
    )


def _special() -> tuple[Contender, ...]:
    """Contenders that are not a registered method with its default parameters."""
    default = ODESteer()
    amount = default.default_amount
    rows: tuple[tuple[str, str, Method, str, Sequence[float] | None], ...] = (
        (
            DEFAULT,
            f"ODESteer, untuned, at its default {amount}",
            default,
            amount.quantity,
            (float(amount.value),),
        ),
        (
            "odesteer-paper",
            "ODESteer.paper(): the published barrier and a fixed T",
            ODESteer.paper(),
            "strength",
            None,
        ),
        (
            "odesteer-standardized",
            "ODESteer.standardized(): a sharp barrier, climbed in the covariance metric",
            ODESteer.standardized(),
            "level",
            None,
        ),
        (
            "one-step-level",
            "one step of ODESteer along its ray to a level",
            OneStep(),
            "level",
            None,
        ),
        (
            "caa-clamped",
            "mean difference, the projection clamped at a level",
            CAA(),
            "level",
            None,
        ),
    )
    return tuple(
        Contender(name, title, candidates=(Candidate.of(method, "", quantity, values),))
        for name, title, method, quantity, values in rows
    )


def names() -> tuple[str, ...]:
    """The names of all contenders: baselines, ODESteer and its variants, then the other methods."""
    specials = [contender.name for contender in _special()]
    others = [
        name
        for name in registry
        if name != TUNED and not issubclass(registry.get(name), (Sum, Conditional))
    ]
    return (NONE, PROMPT, TUNED, *specials, *others)


def contenders(
    wanted: Sequence[str] | None = None,
    *,
    amounts: Mapping[str, Sequence[float]] | None = None,
    variants: Mapping[str, Mapping[str, Method]] | None = None,
) -> tuple[Contender, ...]:
    """The contenders of a benchmark; no steering is always one of them.

    ``wanted`` are their names, by default all but those that are trained through the model;
    ``amounts`` are tried instead of the usual ones, by their quantity: a row whose usual quantity
    is not among them takes the first that its method has, and a row whose method has none of them
    keeps its own. ``variants`` are variants of single methods to choose among, by the name of the
    contender and a label. Raises `UnknownNameError` with near matches, and `InvalidInputError` for
    amounts that no row takes.
    """
    given = {} if amounts is None else dict(amounts)
    special = {contender.name: contender for contender in (*baselines(), *_special())}
    known = names()
    table: Registry[Method] = Registry(
        "method of a benchmark", dict.fromkeys(known, "odesteer.methods:Method")
    )
    if wanted is not None and not wanted:
        raise InvalidInputError("no method was named; name one, or leave the choice out for all.")
    if wanted is None:
        # Training through the model takes minutes for each fit: only where it is asked for.
        wanted = [n for n in known if n not in registry or not registry.get(n).needs_model]
    chosen = list(dict.fromkeys(wanted))
    for name in (*chosen, *(variants or {})):
        table.get(name)
    chosen = [name for name in known if name in {NONE, *chosen}]
    rows = []
    for name in chosen:
        if name in special:
            if name in (variants or {}):
                raise InvalidInputError(f"the row {name!r} has no parameters to choose among.")
            rows.append(_with_amounts(special[name], given))
            continue
        forms = (variants or {}).get(name) or {"": registry.get(name)()}
        title = (registry.get(name).__doc__ or name).partition("\n")[0].rstrip(".")
        candidates = tuple(Candidate.of(method, label) for label, method in forms.items())
        all_layers = any(isinstance(method, HeadITI) for method in forms.values())
        row = Contender(name, title, candidates=candidates, all_layers=all_layers)
        rows.append(_with_amounts(row, given))
    tuned = [row for row in rows if row.name != DEFAULT]
    taken = {candidate.quantity for row in tuned for candidate in row.candidates}
    for quantity in given:
        if quantity not in taken:
            raise InvalidInputError(
                f"none of the rows takes a {quantity}: {', '.join(row.name for row in rows)}; they"
                f" take {' or '.join(sorted(taken)) or 'no amounts'}."
            )
    return tuple(rows)


def _with_amounts(row: Contender, given: Mapping[str, Sequence[float]]) -> Contender:
    """The row with the amounts that are given; that of the untuned default has its own."""
    if not given or row.name == DEFAULT:
        return row
    found = []
    for candidate in row.candidates:
        own = [candidate.quantity, *candidate.method.quantities]
        quantity = next((name for name in own if name in given), None)
        found.append(
            candidate
            if quantity is None
            else Candidate.of(candidate.method, candidate.label, quantity, given[quantity])
        )
    return replace(row, candidates=tuple(found))
