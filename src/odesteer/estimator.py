"""Base classes: Parametrised (constructor arguments) and Estimator (fitted attributes).

The contract is scikit-learn's: the constructor stores its arguments under their own names and
does nothing else; `fit` validates, forgets any earlier fit, changes no parameter and returns
``self``; whatever is learned ends in an underscore. `sklearn.clone` works, and so do `get_params`
and `set_params` with names of parts as in ``barrier__C``.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, NoReturn, TypeVar, cast

import torch
from typing_extensions import Self

from odesteer.errors import InvalidInputError, NotFittedError

T = TypeVar("T")


class FittedPart(Generic[T]):
    """A parameter that `fit` fits too: ``part`` gives the fitted ``part_`` once there is one.

    The parameter itself stays as the constructor got it; `Parametrised.get_params` returns that.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> T:
        if instance is None:
            raise AttributeError(self._name)
        values = vars(instance)
        if self._name not in values:
            raise AttributeError(f"{type(instance).__name__} has no attribute {self._name!r}.")
        return cast(T, values.get(f"{self._name}_", values[self._name]))

    def __set__(self, instance: object, value: T) -> None:
        vars(instance)[self._name] = value


class Parametrised:
    """An object described by its constructor's arguments.

    A default that is itself such an object is copied for each instance, never shared.

    ``family`` names the registry of the concrete classes (``"barrier"``, ``"solver"``…).
    ``formerly_separate`` are parameters of an object that its owners once had themselves. An owner
    still takes them by name: in its constructor, `with_params`, `set_params`, stored artifacts and
    as attributes. ``moved_parameters`` maps them to the owner's parameter that holds them now; it
    follows from the defaults, and a class may state its own for one of them.
    ``added_parameters`` are those that stored artifacts may lack, and what they stand for there.

    ``step_parameters`` are counts of steps and ``size_parameters`` sizes of tensors, on which the
    time and memory of applying the object depend: files in which they are large are refused.
    """

    family: ClassVar[str]
    formerly_separate: ClassVar[tuple[str, ...]] = ()
    moved_parameters: ClassVar[Mapping[str, str]] = {}
    step_parameters: ClassVar[tuple[str, ...]] = ()
    size_parameters: ClassVar[tuple[str, ...]] = ()
    added_parameters: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.moved_parameters = _moved_parameters(cls)
            for name, holder in cls.moved_parameters.items():
                setattr(cls, name, _MovedParameter(holder, name))
            cls.__init__ = _with_own_defaults(cls.__init__, cls.moved_parameters)  # type: ignore[method-assign]

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Names of the constructor's arguments, in order."""
        if cls.__init__ is object.__init__:
            return ()
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{cls.__name__}.__init__ must name every argument.")
        return tuple(parameter.name for parameter in parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments and their present values, of parts the unfitted ones.

        With ``deep`` also the parameters of parts, as ``part__parameter``.
        """
        values = vars(self)
        params = {
            name: values[name] if name in values else getattr(self, name)
            for name in self.parameter_names()
        }
        if deep:
            for name, value in tuple(params.items()):
                if isinstance(value, Parametrised):
                    params.update({f"{name}__{k}": v for k, v in value.get_params().items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Change parameters in place, those of parts by ``part__parameter``.

        What was fitted stays until the next `fit`. Raises `InvalidInputError` for unknown names.
        """
        own = self.get_params(deep=False)
        of_parts: dict[str, dict[str, Any]] = {}
        for name in sorted(params, key=lambda name: "__" in name):  # part= before part__C=
            part, separator, inner = name.partition("__")
            if name in self.moved_parameters:
                part, separator, inner = self.moved_parameters[name], "__", name
            if part not in own or (separator and not isinstance(own[part], Parametrised)):
                self._refuse(name)
            if separator:
                of_parts.setdefault(part, {})[inner] = params[name]
            else:
                setattr(self, name, params[name])
                own[name] = params[name]
        for part, inside in of_parts.items():
            own[part].set_params(**inside)
        return self

    def __sklearn_clone__(self) -> Self:
        return self.clone()

    def clone(self) -> Self:
        """An unfitted copy with the same parameters."""
        return type(self)(
            **{name: _clone(value) for name, value in self.get_params(deep=False).items()}
        )

    def with_params(self, **changes: Any) -> Self:
        """An unfitted copy with some parameters changed."""
        known = self.parameter_names()
        for name in changes:
            if name not in known and name not in self.moved_parameters:
                self._refuse(name)
        kept = {name: _clone(value) for name, value in self.get_params(deep=False).items()}
        return type(self)(**{**kept, **changes})

    def _refuse(self, name: str) -> NoReturn:
        raise InvalidInputError(
            f"{type(self).__name__} has no parameter {name!r}; it has"
            f" {', '.join(self.parameter_names()) or 'none'}."
        )

    def with_seed(self, seed: int) -> Self:
        """An unfitted copy in which every ``seed``, of its parts too, is ``seed``."""
        changes = {
            name: _with_seed(value, seed) for name, value in self.get_params(deep=False).items()
        }
        if "seed" in changes:
            changes["seed"] = seed
        return self.with_params(**changes)

    def __repr__(self) -> str:
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(type(self)).parameters.items()
        }
        shown = (
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if repr(value) != repr(defaults[name])
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class Estimator(Parametrised):
    """A `Parametrised` object that learns from data.

    Learned attributes end in one underscore and are tensors, numbers, strings, ``None``,
    other estimators, or lists and string-keyed dictionaries of these.

    `fit` and `fit_rewards`, `fit_labels`, `fit_queries`, `fit_triples` of every subclass run
    outside the graph and outside inference mode, on detached arguments, so that what they learn can
    take part in a later backward pass whatever mode the caller was in.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("fit", "fit_rewards", "fit_labels", "fit_queries", "fit_triples"):
            if name in vars(cls):
                setattr(cls, name, _outside_the_graph(vars(cls)[name]))

    def learned(self) -> dict[str, Any]:
        """Everything `fit` has learned, by attribute name; empty before `fit`."""
        return {name: value for name, value in vars(self).items() if _is_learned(name)}

    @property
    def is_fitted(self) -> bool:
        return any(map(_is_learned, vars(self)))

    def check_fitted(self) -> None:
        """Raise `NotFittedError` before `fit`."""
        if not self.is_fitted:
            name = type(self).__name__
            raise NotFittedError(
                f"this {name} is not fitted; call {name}(...).fit(positive, negative) first."
            )

    def forget(self) -> None:
        """Drop everything learned."""
        for name in self.learned():
            delattr(self, name)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """A copy whose floating-point tensors are on ``device`` in ``dtype``."""
        moved = copy.copy(self)
        with torch.inference_mode(False):
            for name, value in vars(self).items():
                setattr(moved, name, _move(value, device, dtype))
        return moved


class _MovedParameter:
    """A parameter that lies in the object ``holder``, read and set as if it were the owner's."""

    def __init__(self, holder: str, name: str) -> None:
        self._holder, self._name = holder, name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return getattr(_held(instance, self._holder, getattr(instance, self._holder)), self._name)

    def __set__(self, instance: object, value: Any) -> None:
        held = _held(instance, self._holder, getattr(instance, self._holder))
        setattr(instance, self._holder, held.with_params(**{self._name: value}))


def _held(owner: object, name: str, held: Any) -> Parametrised:
    """The object in a parameter. Raises `InvalidInputError` where something else is."""
    if isinstance(held, Parametrised):
        return held
    default = inspect.signature(type(owner)).parameters[name].default
    kind = type(default).__name__
    raise InvalidInputError(
        f"{name} of {type(owner).__name__} must be a {kind}(...), such as {default!r}, not"
        f" {held!r:.80}."
    )


def _moved_parameters(cls: type[Parametrised]) -> dict[str, str]:
    """Which parameters of objects among a constructor's defaults the class takes itself."""
    own = dict(vars(cls).get("moved_parameters", {}))
    parameters = inspect.signature(cls.__init__).parameters
    found = {
        former: name
        for name, parameter in parameters.items()
        if isinstance(parameter.default, Parametrised) and name not in own.values()
        for former in parameter.default.formerly_separate
        if former not in parameters
    }
    return {**found, **own}


def _with_own_defaults(init: Callable[..., None], moved: Mapping[str, str]) -> Callable[..., None]:
    """``init`` with a copy of every default that is an object, and with moved parameters."""
    parameters = inspect.signature(init).parameters
    names = tuple(parameters)[1:]
    objects = {name: parameters[name].default for name in names}
    objects = {name: default for name, default in objects.items() if _holds_objects(default)}
    if not objects and not moved:
        return init

    @functools.wraps(init)
    def with_own_defaults(self: Parametrised, *args: Any, **kwargs: Any) -> None:
        if len(args) <= len(names) and not kwargs.keys() & names[: len(args)]:
            args, kwargs = (), {**dict(zip(names, args, strict=False)), **kwargs}
        for name in objects.keys() - names[: len(args)] - kwargs.keys():
            kwargs[name] = _clone(objects[name])
        for name in sorted(moved.keys() & kwargs.keys()):
            value, holder = kwargs.pop(name), moved[name]
            kwargs[holder] = _held(self, holder, kwargs[holder]).with_params(**{name: value})
        init(self, *args, **kwargs)

    return with_own_defaults


def _holds_objects(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_objects, value))
    return isinstance(value, Parametrised)


def _outside_the_graph(fit: Callable[..., Any]) -> Callable[..., Any]:
    """``fit`` on detached arguments, without gradients and outside inference mode."""

    @functools.wraps(fit)
    def fit_outside(self: Estimator, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            named = {name: _detached(value) for name, value in kwargs.items()}
            return fit(self, *map(_detached, args), **named)

    return fit_outside


def _detached(value: Any) -> Any:
    """Tensors, also in lists and tuples, without a graph and not of inference mode."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value.clone() if value.is_inference() else value
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        return type(value)(map(_detached, value))
    return value


def _with_seed(value: Any, seed: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_with_seed(item, seed) for item in value)
    return value.with_seed(seed) if isinstance(value, Parametrised) else value


def _is_learned(name: str) -> bool:
    return name[-1] == "_" and name[0] != "_"


def _clone(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_clone, value))
    return value.clone() if isinstance(value, Parametrised) else value


def _move(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Estimator):
        return value.to(device, dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(_move(item, device, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _move(item, device, dtype) for key, item in value.items()}
    return value
