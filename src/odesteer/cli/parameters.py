"""Parameters of methods, written as ``name=value`` words."""

import ast
import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

from odesteer.artifact.state import registry_of
from odesteer.cli.screen import UsageError
from odesteer.estimator import Parametrised
from odesteer.methods import Method, registry
from odesteer.registry import Registry

_WORDS = {"none": None, "true": True, "false": False}


def build_method(name: str, assignments: Sequence[str], seed: int) -> Method:
    """The method called ``name`` with some parameters changed.

    An assignment is ``level=2``, ``barrier=linear`` (a name in the registry of what the parameter
    holds) or ``barrier.C=10`` (a parameter of that part). Every parameter called ``seed`` is
    ``seed``. Raises `UsageError` for words that are no assignments, `UnknownNameError` for
    unknown names.
    """
    method: Parametrised = registry.get(name)()
    method = _seeded(method, seed)
    chosen = pairs_of(assignments, "--param")
    for path in sorted(chosen, key=lambda path: path.count(".")):  # barrier= before barrier.C=
        method = _changed(method, path.split("."), chosen[path], seed)
    return typing.cast(Method, method)


def pairs_of(words: Sequence[str], option: str) -> dict[str, str]:
    """Words of the form ``name=value``. Raises `UsageError` for others, and for a name twice."""
    chosen: dict[str, str] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not name or not text:
            raise UsageError(f"{option} {word!r} is not of the form name=value.")
        if name in chosen:
            raise UsageError(f"{option} {name} is given twice: {chosen[name]!r} and {text!r}.")
        chosen[name] = text
    return chosen


def _changed(part: Parametrised, path: Sequence[str], text: str, seed: int) -> Parametrised:
    """A copy of ``part`` with the parameter at ``path`` set to what ``text`` says."""
    name, *deeper = path
    present = _present(part, name)
    if deeper:
        if not isinstance(present, Parametrised):
            raise UsageError(
                f"{type(part).__name__}.{name} is {present!r} and has no parameter {deeper[0]!r}."
            )
        return part.with_params(**{name: _changed(present, deeper, text, seed)})
    hint = typing.get_type_hints(type(part).__init__).get(name, Any)
    parts = _registry(hint)
    if parts is not None and text.lower() not in _WORDS:
        return part.with_params(**{name: _seeded(parts.get(text)(), seed)})
    value = _value(text)
    if not _fits(value, hint):
        raise UsageError(
            f"--param {name}={text}: {type(part).__name__}.{name} takes {_described(hint)}, not"
            f" {text!r}."
        )
    return part.with_params(**{name: value})


def _present(part: Parametrised, name: str) -> Any:
    parameters = part.get_params()
    if name not in parameters:
        near = difflib.get_close_matches(name, parameters, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(
            f"{type(part).__name__} has no parameter {name!r}.{hint} It has"
            f" {', '.join(parameters) or 'none'}."
        )
    return parameters[name]


def _seeded(part: Parametrised, seed: int) -> Parametrised:
    """A copy in which every parameter called ``seed`` is ``seed``."""
    changes: dict[str, Any] = {
        name: _seeded(value, seed)
        for name, value in part.get_params().items()
        if isinstance(value, Parametrised)
    }
    if "seed" in part.parameter_names():
        changes["seed"] = seed
    return part.with_params(**changes)


def _value(text: str) -> Any:
    """A number, None, true or false, several numbers with commas, or else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def _registry(hint: Any) -> Registry[Any] | None:
    """The registry that values of this type stand in, if there is one."""
    for member in _members(hint):
        if isinstance(member, type) and issubclass(member, Parametrised):
            return registry_of(member.family)
    return None


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return any(_is_a(value, member) for member in _members(hint))


def _is_a(value: Any, member: Any) -> bool:
    if member is Any:
        return True
    if typing.get_origin(member) is typing.Literal:
        return value in typing.get_args(member)
    kind = typing.get_origin(member) or member
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    if isinstance(value, str) and kind is not str:
        return False
    if isinstance(value, (tuple, list)):
        (item,) = typing.get_args(member)[:1] or (Any,)
        return isinstance(value, kind) and all(_fits(each, item) for each in value)
    return isinstance(value, kind)


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


_NAMES = {float: "a number", int: "an integer", str: "a word", bool: "true or false"}


def _described(hint: Any) -> str:
    def one(member: Any) -> str:
        if member is type(None):
            return "none"
        if typing.get_origin(member) is typing.Literal:
            return ", ".join(map(str, typing.get_args(member)))
        if typing.get_args(member):
            return "several with commas between them"
        return _NAMES.get(member, getattr(member, "__name__", str(member)))

    return " or ".join(one(member) for member in _members(hint))
