"""Serialization of fitted objects to JSON and tensors, and back.

An object becomes a JSON value, its *spec*, and a flat dictionary of tensors that the spec names.
Classes are written by their names in the registries and looked up there again; nothing else is
ever imported, and nothing is unpickled.

The spec of an object is ``{"family", "name", "params", "learned"}``. Inside, numbers, strings and
None stand for themselves and lists for lists; everything else is a JSON object with one key that
says what it is: ``{"tensor": ...}``, ``{"object": ...}``, ``{"tuple": [...]}``, ``{"dict":
{...}}``. A tensor is ``{"name", "dtype", "shape", "order"}``: its shape in the file, and which of
its dimensions each of these is. A learned number that is NaN is ``{"number": "unknown"}``; nothing
else may be NaN or infinite.
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact.limits import FileLimits
from odesteer.errors import ArtifactError, InvalidInputError, OdesteerError, UnknownNameError
from odesteer.estimator import Estimator, Parametrised
from odesteer.methods.base import Method
from odesteer.registry import Registry
from odesteer.untrusted import brief, is_integer

Spec = dict[str, Any]

# Where the classes of each family are registered.
_REGISTRIES = {
    "method": "odesteer.methods:registry",
    "barrier": "odesteer.barriers:registry",
    "inputs": "odesteer.barriers:inputs_registry",
    "training": "odesteer.barriers:training_registry",
    "function": "odesteer.barriers:function_registry",
    "solver": "odesteer.flows:registry",
    "metric": "odesteer.flows:metric_registry",
    "objective": "odesteer.methods:objective_registry",
}

FAMILIES = tuple(_REGISTRIES)

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}

# A learned number that nobody knows, such as a quantile of a barrier that was given, not fitted.
_UNKNOWN = {"number": "unknown"}

# Real objects are nested a handful deep.
_MAX_DEPTH = 32


def encode(fitted: Parametrised, prefix: str = "") -> tuple[Spec, dict[str, Tensor]]:
    """The spec of an object and its tensors, on the CPU, whose names begin with ``prefix``.

    Raises `InvalidInputError` for what cannot be written: unregistered classes, values of other
    types, tensors and numbers that are not finite.
    """
    encoder = _Encoder()
    return encoder.instance(prefix, fitted), encoder.tensors


def decode(spec: object, tensors: Mapping[str, Tensor], family: str) -> Parametrised:
    """Rebuild the object of this family that `encode` described; nothing is fitted.

    Raises `ArtifactError` for specs that describe no object, that name tensors which do not exist
    or differ from what they say, or that leave tensors over.
    """
    with torch.inference_mode(False):  # the caller may be in it; what is loaded must not be
        tensors = {k: v.clone() if v.is_inference() else v for k, v in tensors.items()}
        decoder = _Decoder(tensors)
        decoded = decoder.instance(f"the {family}", spec, 0, family)
    unused = sorted(set(tensors) - decoder.used)
    if unused:
        raise ArtifactError(f"it holds tensors that belong to nothing: {', '.join(unused[:5])}.")
    return decoded


def check_tensors(spec: object, declared: Mapping[str, tuple[str, list[int]]]) -> None:
    """Check the types and shapes of tensors in a file against those that a spec names.

    Raises `ArtifactError`, also for tensors that only one of them has.
    """
    named: dict[str, Spec] = {}
    for value in _objects_in(spec):
        tensor = value.get("tensor")
        if len(value) == 1 and isinstance(tensor, dict) and isinstance(tensor.get("name"), str):
            named[tensor["name"]] = tensor
    unused, missing = sorted(declared.keys() - named), sorted(named.keys() - declared.keys())
    if missing:
        raise ArtifactError(f"the tensor {brief(missing[0])} is missing.")
    if unused:
        raise ArtifactError(f"it holds tensors that belong to nothing: {brief(unused)}.")
    for name, tensor in named.items():
        _check_tensor(f"tensor {brief(name)}", tensor, *declared[name])


def check_costs(spec: object, limits: FileLimits) -> None:
    """Check what the objects in a spec will cost. Raises `ArtifactError` above the limits.

    Objects of unknown classes are left to `decode`, which refuses them.
    """
    n_steps = 0
    for value in _objects_in(spec):
        params = value.get("params")
        if not isinstance(params, dict) or not {"family", "name"} <= value.keys():
            continue
        try:
            cls = _class_of("", value["family"], value["name"], None)
        except OdesteerError:
            continue
        for name, number in params.items():
            if not is_integer(number):
                continue
            what = f"the parameter {name} of {cls.__name__} is too large"
            if name in cls.step_parameters:
                limits.check("n_steps", number, what)
                n_steps += number
            if name in cls.size_parameters:
                limits.check("size", number, what)
    limits.check("n_steps", n_steps, "all steps of its solvers together are too many")


def _objects_in(value: object) -> Iterator[dict[str, Any]]:
    """All JSON objects in a JSON value, however deep."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def _check_tensor(path: str, spec: Spec, dtype: str, shape: list[int]) -> None:
    if spec.get("dtype") != dtype or spec.get("shape") != shape:
        raise ArtifactError(
            f"{path}: the tensor is {dtype} {shape}, but should be"
            f" {brief(spec.get('dtype'))} {brief(spec.get('shape'))}."
        )


def registry_of(family: str) -> Registry[Any]:
    """The registry of a family. Raises `UnknownNameError` for families that have none."""
    if family not in _REGISTRIES:
        raise UnknownNameError(f"unknown family {brief(family)}; known: {', '.join(_REGISTRIES)}.")
    module, _, name = _REGISTRIES[family].partition(":")
    registry: Registry[Any] = getattr(import_module(module), name)
    return registry


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def instance(self, path: str, value: Parametrised) -> Spec:
        learned = value.learned() if isinstance(value, Estimator) else {}
        prefix = f"{path}." if path else ""
        try:
            name = registry_of(value.family).name_of(type(value))
        except UnknownNameError as error:
            raise InvalidInputError(f"{path or 'it'} cannot be saved: {error}") from None
        return {
            "family": value.family,
            "name": name,
            "params": self.values(prefix, _stored_params(value)),
            "learned": {
                key: _UNKNOWN if _is_nan(learned[key]) else self.value(prefix + key, learned[key])
                for key in sorted(learned)
            },
        }

    def values(self, prefix: str, values: Mapping[str, Any]) -> Spec:
        # In the order of the file, so that names do not depend on the order of attributes.
        return {key: self.value(prefix + key, values[key]) for key in sorted(values)}

    def value(self, path: str, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidInputError(f"{path} cannot be saved: it is {value}, not finite.")
            return value
        if isinstance(value, Tensor):
            return {"tensor": self.tensor(path, value)}
        if isinstance(value, Parametrised):
            return {"object": self.instance(path, value)}
        if isinstance(value, (list, tuple)):
            items = [self.value(f"{path}.{i}", item) for i, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": self.values(f"{path}.", value)}
        raise InvalidInputError(
            f"{path} cannot be saved: it is a {type(value).__name__}. Saved are numbers, strings,"
            " None, tensors, registered objects, and lists, tuples and string-keyed dictionaries"
            " of these."
        )

    def tensor(self, path: str, value: Tensor) -> Spec:
        if value.layout != torch.strided or value.dtype not in _DTYPES.values():
            raise InvalidInputError(
                f"{path} cannot be saved: it is a {value.layout} tensor of {value.dtype}; saved"
                f" are dense tensors of {', '.join(_DTYPES)}."
            )
        if not bool(torch.isfinite(value).all()):
            raise InvalidInputError(f"{path} cannot be saved: it holds values that are not finite.")
        name = path
        while name in self.tensors:  # a dictionary key may spell the path of another tensor
            name += "'"
        order = _memory_order(value)
        # A copy of its own: views of one storage are written as separate tensors.
        stored = value.detach().to("cpu", copy=True).permute(order).contiguous()
        self.tensors[name] = stored
        dtype = str(value.dtype).removeprefix("torch.")
        return {"name": name, "dtype": dtype, "shape": list(stored.shape), "order": order}


class _Decoder:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.used: set[str] = set()

    def instance(
        self, path: str, spec: object, depth: int, family: str | None = None
    ) -> Parametrised:
        fields = _fields(path, spec, "family", "name", "params", "learned")
        cls = _class_of(path, fields["family"], fields["name"], family)
        params = self.values(path, fields["params"], depth)
        if issubclass(cls, Method):
            params = _read_params(path, cls, params)
        known = {k: v for k, v in _mapping(path, fields["learned"]).items() if v != _UNKNOWN}
        unknown_numbers = dict.fromkeys(set(fields["learned"]) - set(known), math.nan)
        learned = {**self.values(path, known, depth), **unknown_numbers}
        expected = cls.parameter_names()
        params = {**{k: v for k, v in cls.added_parameters.items() if k in expected}, **params}
        # Parameters that earlier versions wrote one by one now lie in an object of their own.
        present = {cls.moved_parameters.get(name, name) for name in params}
        if present != set(expected):
            unknown = sorted(present - set(expected))
            missing = sorted(set(expected) - present)
            raise ArtifactError(
                f"{path}: {cls.__name__} takes the parameters {', '.join(expected) or 'none'};"
                f" unknown here: {', '.join(unknown) or 'none'}; missing:"
                f" {', '.join(missing) or 'none'}. Another version of odesteer wrote it."
            )
        try:
            decoded = cls(**params)
        # Constructors of plugins may raise anything over values that they did not write.
        except Exception as error:
            raise ArtifactError(
                f"{path}: {cls.__name__} refuses its parameters: {error}"
            ) from error
        if learned and not isinstance(decoded, Estimator):
            raise ArtifactError(f"{path}: {cls.__name__} learns nothing, but has learned values.")
        for name, value in learned.items():
            private = name.startswith("_") or not name.endswith("_")
            if private or not name.isidentifier() or hasattr(cls, name):
                raise ArtifactError(f"{path}: {brief(name)} is not a learned attribute.")
            setattr(decoded, name, value)
        return decoded

    def values(self, path: str, spec: object, depth: int) -> dict[str, Any]:
        items = _mapping(path, spec).items()
        return {key: self.value(f"{path}.{key}", item, depth) for key, item in items}

    def value(self, path: str, spec: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"it is nested more than {_MAX_DEPTH} deep.")
        depth += 1
        if spec is None or isinstance(spec, (bool, int, str)):
            return spec
        if isinstance(spec, float):
            if not math.isfinite(spec):
                raise ArtifactError(f"{path}: {spec} is not finite.")
            return spec
        if isinstance(spec, list):
            return [self.value(f"{path}.{i}", item, depth) for i, item in enumerate(spec)]
        if isinstance(spec, dict) and len(spec) == 1:
            ((kind, content),) = spec.items()
            if kind == "tensor":
                return self.tensor(path, content)
            if kind == "object":
                return self.instance(path, content, depth)
            if kind == "dict":
                return self.values(path, content, depth)
            if kind == "tuple" and isinstance(content, list):
                return tuple(
                    self.value(f"{path}.{i}", item, depth) for i, item in enumerate(content)
                )
        raise ArtifactError(f"{path}: {brief(spec)} describes no value.")

    def tensor(self, path: str, spec: object) -> Tensor:
        fields = _fields(path, spec, "name", "dtype", "shape", "order")
        name = fields["name"]
        if not isinstance(name, str) or name not in self.tensors:
            raise ArtifactError(f"{path}: the tensor {brief(name)} is missing.")
        if name in self.used:
            raise ArtifactError(f"{path}: the tensor {brief(name)} is used twice.")
        self.used.add(name)
        tensor = self.tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        _check_tensor(path, fields, dtype, list(tensor.shape))
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: the tensor holds values that are not finite.")
        order = fields["order"]
        dimensions = list(range(tensor.ndim))
        known = isinstance(order, list) and all(map(is_integer, order))
        if not known or sorted(order) != dimensions:
            raise ArtifactError(f"{path}: {brief(order)} is no order of {tensor.ndim} dimensions.")
        return tensor.permute([order.index(i) for i in dimensions])


def _stored_params(value: Parametrised) -> dict[str, Any]:
    """The parameters of an object as files have them.

    Those that have moved into an object of their own are still written one by one, as long as
    they tell all about it, and those that were added are left out where nothing has changed, so
    that files and their digests stay as earlier versions wrote them.
    """
    params = {
        name: held
        for name, held in value.get_params(deep=False).items()
        if name not in value.added_parameters or held != value.added_parameters[name]
    }
    for holder in sorted(set(value.moved_parameters.values())):
        held = params[holder]
        default = inspect.signature(type(value)).parameters[holder].default
        if type(held) is not type(default):
            continue
        moved = {
            name: getattr(held, name)
            for name, target in value.moved_parameters.items()
            if target == holder
        }
        if default.with_params(**moved).get_params(deep=False) == held.get_params(deep=False):
            del params[holder]
            params.update(moved)
    return value.written_params(params) if isinstance(value, Method) else params


def _read_params(path: str, cls: type[Method], params: dict[str, Any]) -> dict[str, Any]:
    try:
        return cls.read_params(params)
    except (InvalidInputError, TypeError) as error:
        raise ArtifactError(f"{path}: {cls.__name__} refuses its parameters: {error}") from error


def _mapping(path: str, spec: object) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise ArtifactError(f"{path}: values by name expected, found {brief(spec)}.")
    return spec


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _memory_order(value: Tensor) -> list[int]:
    """The dimensions of a tensor in memory order, from the slowest to the fastest.

    It is stored because products of matrices round differently for rows and for columns in
    memory, and a loaded steerer has to agree with the fitted one to the bit.
    """
    if value.is_contiguous():
        return list(range(value.ndim))
    # Strides of single entries mean nothing.
    return sorted(
        range(value.ndim), key=lambda i: -value.stride()[i] if value.shape[i] > 1 else -(2**63)
    )


def _fields(path: str, spec: object, *names: str) -> dict[str, Any]:
    if not isinstance(spec, dict) or set(spec) != set(names):
        raise ArtifactError(f"{path}: fields {', '.join(names)} expected, found {brief(spec)}.")
    return spec


def _class_of(path: str, family: object, name: object, expected: str | None) -> type[Parametrised]:
    if not isinstance(family, str) or not isinstance(name, str):
        raise ArtifactError(f"{path}: family and name must be strings.")
    if expected is not None and family != expected:
        raise ArtifactError(f"{path}: a {expected} expected, found a {brief(family)}.")
    try:
        cls: type[Parametrised] = registry_of(family).get(name)
    except UnknownNameError as error:
        raise ArtifactError(
            f"{path}: {error} It may come from a newer odesteer, or from a plugin package that is"
            " not installed here."
        ) from None
    except OdesteerError:
        raise
    except Exception as error:  # the import of a plugin
        raise ArtifactError(f"{path}: {family} {name!r} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Parametrised)):
        raise ArtifactError(f"{path}: {family} {name!r} is registered with {brief(cls)}.")
    return cls
