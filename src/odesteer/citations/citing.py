"""`citation`: the references of what was used, as BibTeX."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from odesteer import barriers, flows, methods
from odesteer.artifact import Steerer, SteererSet
from odesteer.citations.keys import FAMILIES
from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.estimator import Parametrised
from odesteer.registry import Registry
from odesteer.version import __version__

_REGISTRIES: dict[str, Registry[Any]] = {
    "method": methods.registry,
    "barrier": barriers.registry,
    "solver": flows.registry,
    "metric": flows.metric_registry,
}
_ENTRY = re.compile(r"^@\w+\{([\w-]+),.*?^\}", re.MULTILINE | re.DOTALL)


def citation(*used: Any) -> str:
    """The references of what was used, as BibTeX, and of odesteer itself.

    ``used`` are methods, barriers, solvers, metrics, steerers and sets of them, classes or
    registered names ("caa"); of objects also the parts inside. A plugin's class may have an
    attribute ``bibtex`` with entries of its own. Raises `UnknownNameError` for names that are in no
    registry, and `InvalidInputError` for anything else.
    """
    entries = [_software()]
    for one in used:
        for cls in _classes(one):
            entries += [_references()[key] for key in reference_keys(cls)]
            own = getattr(cls, "bibtex", None)
            entries += [own.strip()] if isinstance(own, str) else []
    return "\n\n".join(dict.fromkeys(entries)) + "\n"


def reference_keys(cls: type[Parametrised]) -> tuple[str, ...]:
    """The keys in BibTeX of a class of odesteer; none for classes of plugins."""
    registry = _REGISTRIES.get(getattr(cls, "family", ""))
    if registry is None:
        return ()
    try:
        name = registry.name_of(cls)
    except UnknownNameError:
        return ()
    return FAMILIES[cls.family].get(name, ())


@cache
def _references() -> dict[str, str]:
    """The entries of ``references.bib`` by key."""
    text = files("odesteer.citations").joinpath("references.bib").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in _ENTRY.finditer(text)}


def _software() -> str:
    return (
        "@software{odesteer,\n"
        "  title = {odesteer: activation steering of large language models as an {ODE} along a"
        " barrier function},\n"
        "  author = {{The odesteer authors}},\n"
        f"  version = {{{__version__}}}\n"
        "}"
    )


def _classes(used: Any) -> Iterator[type[Any]]:
    """The classes of an object and of the parts inside, the outermost first."""
    if isinstance(used, str):
        yield from _named(used)
    elif isinstance(used, type) and issubclass(used, Parametrised):
        yield used
    elif isinstance(used, SteererSet):
        for steerer in used:
            yield from _classes(steerer)
    elif isinstance(used, Steerer):
        yield from _classes(used.method)
        if used.gate is not None:
            yield methods.Conditional
            yield from _classes(used.gate.condition)
    elif isinstance(used, Parametrised):
        yield type(used)
        inside = [*used.get_params(deep=False).values(), *vars(used).values()]
        for value in inside:
            parts = value if isinstance(value, (list, tuple)) else [value]
            for part in parts:
                if isinstance(part, Parametrised):
                    yield from _classes(part)
    else:
        raise InvalidInputError(
            f"there is no reference for {used!r:.80}; give a method, barrier, solver, steerer, or"
            " a registered name such as 'caa'."
        )


def _named(name: str) -> list[type[Any]]:
    for registry in _REGISTRIES.values():
        if name in registry:
            return [registry.get(name)]
    known = ", ".join(sorted({known for registry in _REGISTRIES.values() for known in registry}))
    raise UnknownNameError(f"nothing is registered as {name!r}. Known: {known}.")
