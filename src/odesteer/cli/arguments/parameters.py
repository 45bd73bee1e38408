"""Parameters of methods as ``name=value`` (``--param``, ``--vary``)."""

import ast
import difflib
import inspect
import itertools
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

from odesteer.artifact.serialization import registry_of
from odesteer.cli.errors import UsageError
from odesteer.estimator import Parametrised
from odesteer.methods import QUANTITIES, Amount, Method, registry
from odesteer.registry import Registry

_LITERALS = {"none": None, "true": True, "false": False}


def build_method(name: str, assignments: Sequence[str], seed: int) -> Method:
    """The method called ``name`` with some parameters changed.

    An assignment is ``level=2``, ``barrier=linear`` (a name in the registry of what the parameter
    holds), ``barrier.C=10`` (a parameter of that part), ``methods=caa,odesteer`` (several such
    names) or ``methods.0.T=2`` (a parameter of the first). Every parameter called ``seed`` is
    ``seed``. Raises `UsageError` for values that are no assignments,
    `UnknownNameError` for unknown names.
    """
    method = _named(registry, name, seed)
    chosen = pairs_of(assignments, "--param")
    for path in sorted(chosen, key=lambda path: path.count(".")):  # barrier= before barrier.C=
        method = _changed(method, path.split("."), chosen[path], seed)
    return typing.cast(Method, method)


def combinations(
    name: str, varied: Sequence[str], params: Sequence[str] = (), seed: int = 0
) -> dict[str, Method]:
    """A method with every combination of the varied parameters, by label."""
    options = [
        [f"{parameter}={value.strip()}" for value in values.split("/")]
        for parameter, values in pairs_of(varied, "--vary").items()
    ]
    return {
        " ".join(chosen): build_method(name, [*params, *chosen], seed)
        for chosen in itertools.product(*options)
    }


def pairs_of(values: Sequence[str], option: str) -> dict[str, str]:
    """Values of the form ``name=value``. Raises `UsageError` for others, and for repeated names."""
    chosen: dict[str, str] = {}
    for value in values:
        name, equals, text = (part.strip() for part in value.partition("="))
        if not equals or not name or not text:
            raise UsageError(f"{option} {value!r} is not of the form name=value.")
        if name in chosen:
            raise UsageError(f"{option} {name} is given twice: {chosen[name]!r} and {text!r}.")
        chosen[name] = text
    return chosen


def _changed(part: Parametrised, path: Sequence[str], text: str, seed: int) -> Parametrised:
    """A copy of ``part`` with the parameter at ``path`` set to the value of ``text``."""
    if path[0] in part.moved_parameters:
        path = [part.moved_parameters[path[0]], *path]
    if isinstance(part, Method) and len(path) == 1 and path[0] in QUANTITIES:
        parameters = part.get_params()
        if "amount" in parameters and path[0] not in parameters:
            return _with_amount(part, path[0], text)
    name, *deeper = path
    present = _present(part, name)
    if deeper and _is_several(present):
        return part.with_params(**{name: _one_changed(part, name, deeper, text, seed)})
    if deeper:
        if not isinstance(present, Parametrised):
            raise UsageError(
                f"{type(part).__name__}.{name} is {present!r} and has no parameter {deeper[0]!r}."
            )
        return part.with_params(**{name: _changed(present, deeper, text, seed)})
    hint = typing.get_type_hints(type(part).__init__).get(name, Any)
    several = _registry_of_items(hint)
    if several is not None and ("," in text or _registry(hint) is None):
        names = [each.strip() for each in text.split(",")]
        return part.with_params(**{name: tuple(_named(several, each, seed) for each in names)})
    parts = _registry(hint)
    if parts is not None and text.lower() not in _LITERALS:
        return part.with_params(**{name: _named(parts, text, seed)})
    value = _value(text)
    if not _fits(value, hint):
        raise UsageError(
            f"--param {name}={text}: {type(part).__name__}.{name} takes {_described(hint)}, not"
            f" {text!r}."
        )
    return part.with_params(**{name: value})


def _with_amount(method: Method, quantity: str, text: str) -> Method:
    """A copy of a method whose default amount is of this quantity; none takes its default away."""
    value = _value(text)
    if not _fits(value, float | None):
        raise UsageError(
            f"--param {quantity}={text}: {quantity} takes a number or none, not {text!r}."
        )
    if value is not None:
        method.check_amount(Amount(quantity, value))
    elif method.amount is not None and method.default_amount.quantity != quantity:
        return method  # another quantity is the default already
    return method.with_params(**{quantity: value})


def _one_changed(
    part: Parametrised, name: str, path: Sequence[str], text: str, seed: int
) -> tuple[Parametrised, ...]:
    """The parts of a parameter that holds several, with one of them changed."""
    parts = part.get_params(deep=False)[name]
    index, *deeper = path
    if not index.isdecimal() or int(index) >= len(parts) or not deeper:
        raise UsageError(
            f"{type(part).__name__}.{name} holds {len(parts)} parts; write"
            f" {name}.0.PARAMETER=VALUE for a parameter of the first, not"
            f" {name}.{'.'.join(path)}={text}."
        )
    changed = list(parts)
    changed[int(index)] = _changed(parts[int(index)], deeper, text, seed)
    return tuple(changed)


def _is_several(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(item, Parametrised) for item in value)
    )


def _named(parts: Registry[Any], name: str, seed: int) -> Parametrised:
    """The part called ``name`` with default arguments. Raises `UsageError` if it needs any."""
    cls = parts.get(name)
    needed = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
    ]
    if needed:
        raise UsageError(
            f"{parts.kind} {name!r} needs {' and '.join(needed)}, which cannot be written on a"
            " command line; build it in Python."
        )
    made: Parametrised = cls()
    return made.with_seed(seed)


def _present(part: Parametrised, name: str) -> Any:
    parameters = part.get_params(deep=False)
    if name not in parameters:
        words = part.quantities if isinstance(part, Method) and "amount" in parameters else ()
        near = difflib.get_close_matches(name, [*parameters, *words], n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(
            f"{type(part).__name__} has no parameter {name!r}.{hint} It has"
            f" {', '.join(parameters) or 'none'}."
        )
    return parameters[name]


def _value(text: str) -> Any:
    """A number, None, true or false, several numbers with commas, or else the text itself."""
    if text.lower() in _LITERALS:
        return _LITERALS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def _registry(hint: Any) -> Registry[Any] | None:
    """The registry of values of this type, if there is one."""
    for member in _members(hint):
        if isinstance(member, type) and issubclass(member, Parametrised):
            return registry_of(member.family)
    return None


def _registry_of_items(hint: Any) -> Registry[Any] | None:
    """The same for parameters that hold several parts."""
    for member in _members(hint):
        if typing.get_origin(member) in (tuple, list, Sequence):
            return _registry(typing.get_args(member)[0])
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
