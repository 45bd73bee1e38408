"""Markdown tables of the registered methods and their parameters, read from their classes."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from odesteer.methods import registry
from odesteer.methods.amount import QUANTITIES
from odesteer.methods.base import Method
from odesteer.methods.sum import Sum
from odesteer.methods.wrapper import Wrapper

_SECTION = re.compile(r"^Parameters:\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^    ([\w, ]+): (.*\n?(?:        .*\n?)*)", re.MULTILINE)
_UNSTATED = "not stated"


@dataclass(frozen=True)
class Parameter:
    """A constructor's argument: its default as code, and its meaning with its unit."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Description:
    """A row of the table of methods; `Method` documents the attributes."""

    name: str
    cls: type[Method]
    summary: str
    dynamics: str
    barrier: str
    solver: str
    keeps_norm: str
    quantities: str
    cost: str
    reference: str
    parameters: tuple[Parameter, ...]


def describe(name: str) -> Description:
    """The method of this name. Raises `UnknownNameError` as the registry does."""
    cls = registry.get(name)
    method = cls()
    keeps_norm = "yes" if method.keeps_norm else "no"
    if isinstance(inspect.getattr_static(cls, "keeps_norm"), property):
        keeps_norm = "as inside"
    quantities = ", ".join(method.quantities)
    if issubclass(cls, Wrapper):
        quantities = f"those of the method inside; here {quantities}"
    elif issubclass(cls, Sum):
        quantities = f"{quantities}; all but the first as far as all methods have them"
    return Description(
        name=name,
        cls=cls,
        summary=(inspect.getdoc(cls) or "").partition("\n")[0],
        dynamics=cls.dynamics or _UNSTATED,
        barrier=cls.barrier_summary or "none",
        solver=cls.solver_summary,
        keeps_norm=keeps_norm,
        quantities=quantities,
        cost=cls.cost or _UNSTATED,
        reference=cls.reference or _UNSTATED,
        parameters=_parameters(cls),
    )


def describe_all() -> list[Description]:
    """All registered methods, by name."""
    return [describe(name) for name in registry]


def markdown(methods: Sequence[Description] | None = None) -> str:
    """Three tables: methods, their parameters, and the quantities."""
    methods = describe_all() if methods is None else methods
    lines = _table(
        ("method", "field or map", "barrier", "solver", "norm kept", "how much", "per token"),
        (
            (f"`{m.name}`", m.dynamics, m.barrier, m.solver, m.keeps_norm, m.quantities, m.cost)
            for m in methods
        ),
    )
    lines += ["", "What the names stand for, and where the methods come from:", ""]
    lines += _table(
        ("method", "class", "in short", "paper"),
        ((f"`{m.name}`", f"`{m.cls.__name__}`", m.summary, m.reference) for m in methods),
    )
    lines += ["", "How much: exactly one quantity; a bare number means the first of a method.", ""]
    lines += _table(("quantity", "unit"), ((f"`{q}`", unit) for q, unit in QUANTITIES.items()))
    lines += ["", "Parameters, with their units:", ""]
    lines += _table(
        ("method", "parameter", "default", "meaning"),
        (
            (f"`{m.name}`", f"`{p.name}`", f"`{p.default}`", p.meaning)
            for m in methods
            for p in m.parameters
        ),
    )
    return "\n".join(lines) + "\n"


def overview(pages: Mapping[str, str], methods: Sequence[Description] | None = None) -> str:
    """A row for each method, its name a link to its section, and the quantities.

    ``pages`` are addresses by the name of a method.
    """
    methods = describe_all() if methods is None else methods
    lines = _table(
        ("method", "class", "field or map", "how much", "per token"),
        (
            (
                f"[`{m.name}`]({pages[m.name]}#{m.name})",
                f"`{m.cls.__name__}`",
                m.dynamics,
                m.quantities,
                m.cost,
            )
            for m in methods
        ),
    )
    lines += ["", "How much: exactly one quantity; a bare number means the first of a method.", ""]
    lines += _table(("quantity", "unit"), ((f"`{q}`", unit) for q, unit in QUANTITIES.items()))
    return "\n".join(lines) + "\n"


def section(method: Description) -> str:
    """What one method is, and its parameters with their units, under a heading of its name."""
    rows = (
        ("field or map", method.dynamics),
        ("barrier", method.barrier),
        ("solver", method.solver),
        ("norm kept", method.keeps_norm),
        ("how much", method.quantities),
        ("per token", method.cost),
        ("paper", method.reference),
    )
    about = _table(("class", f"`{method.cls.__name__}`"), rows)
    lines = [f"## {method.name}", "", method.summary, "", *about]
    if method.parameters:
        lines += ["", *_table(("parameter", "default", "meaning"), _explained(method))]
    return "\n".join(lines) + "\n"


def _explained(method: Description) -> Iterable[tuple[str, str, str]]:
    return ((f"`{p.name}`", f"`{p.default}`", p.meaning) for p in method.parameters)


def _parameters(cls: type[Method]) -> tuple[Parameter, ...]:
    meanings = _meanings(cls)
    signature = inspect.signature(cls).parameters
    return tuple(
        Parameter(name, repr(parameter.default), meanings.get(name, ""))
        for name, parameter in signature.items()
    )


def _meanings(cls: type[Method]) -> dict[str, str]:
    """The entries of the section "Parameters" in the docstring, by name."""
    section = _SECTION.search((inspect.getdoc(cls) or "") + "\n")
    if section is None:
        return {}
    return {
        name.strip(): " ".join(text.split())
        for names, text in _ENTRY.findall(section[1])
        for name in names.split(",")
    }


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return " ".join(["|", " | ".join(cell.replace("|", r"\|") for cell in cells), "|"])

    return [line(header), line("---" for _ in header), *map(line, rows)]
