"""Validation of methods that were read from files."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from odesteer.barriers import ProjectedBarrier
from odesteer.errors import ArtifactError, ConvergenceError, InvalidInputError
from odesteer.estimator import Estimator
from odesteer.methods import Amount, Method
from odesteer.untrusted import is_integer


def check_method(method: object, tensors: Mapping[str, Tensor]) -> Method:
    """Check a decoded method and its ``tensors``. Raises `ArtifactError` if it is not usable."""
    if not isinstance(method, Method):
        raise ArtifactError(f"its method is {type(method).__name__}, which is no Method.")
    _check_state(method, tensors)
    return method


def _check_state(method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Check width, mean norm and unit of strength of a method, and the widths of its parts."""
    width, norm = getattr(method, "width_", None), getattr(method, "mean_norm_", None)
    given = any(map(_is_given, _parts(method)))
    unknown = type(norm) is float and math.isnan(norm) and given
    if not is_integer(width, 1) or type(norm) is not float or not (unknown or 0 <= norm < math.inf):
        raise ArtifactError(f"its method has width {width!r} and mean norm {norm!r}.")
    unit = vars(method).get("strength_unit_", norm)  # NaN, where unknown, counts nothing
    if type(unit) is not float or not 0 <= unit < math.inf:
        raise ArtifactError(f"its method counts strength in units of {unit!r}.")
    # A width beyond all tensors would let a file make the first call allocate any amount.
    if not any(width <= tensor.numel() for tensor in tensors.values()):
        raise ArtifactError(f"its method has width {width}, but no tensor is as long.")
    _check_widths(method, width)


def _check_widths(part: Estimator, width: int) -> None:
    """Check that an object and all inside have a width; those inside a map that of its image.

    Raises `ArtifactError`.
    """
    if getattr(part, "width_", width) != width:
        raise ArtifactError(
            f"its method has width {width}, but its {part.family} has width {part.width_}."  # type: ignore[attr-defined]
        )
    if isinstance(part, ProjectedBarrier):
        width = getattr(vars(part).get("barrier_"), "width_", width)
    for inside in _children(part):
        _check_widths(inside, width)


def _is_given(part: Estimator) -> bool:
    """Whether it was made of given vectors: without examples its barrier has no quantiles."""
    barrier = vars(part).get("barrier_")
    given = isinstance(part, Method) and part.may_be_given
    return given and (barrier is None or math.isnan(getattr(barrier, "upper_", math.nan)))


def _parts(estimator: Estimator) -> list[Estimator]:
    return [estimator, *(deeper for part in _children(estimator) for deeper in _parts(part))]


def _children(estimator: Estimator) -> list[Estimator]:
    values = [*estimator.get_params(deep=False).values(), *estimator.learned().values()]
    several = [item for value in values if isinstance(value, (list, tuple)) for item in value]
    return [value for value in [*values, *several] if isinstance(value, Estimator)]


def try_out(method: Method) -> None:
    """Steer one activation, so that parameters and tensors that do not fit each other fail here."""
    a = torch.ones(1, method.width_)
    try:
        # A level has no meaning where the barrier does not separate the classes. Such a file is
        # valid if the method takes another quantity.
        amounts = [method.default_amount, *(Amount(name, 1.0) for name in method.quantities)]
        for amount in amounts:
            try:
                state = method.solve(a, amount).state
            except InvalidInputError:
                if amount is amounts[-1]:
                    raise
                continue
            if state.shape != a.shape:
                raise ArtifactError(f"it turns {tuple(a.shape)} into {tuple(state.shape)}.")
            return
    except ArtifactError:
        raise
    except ConvergenceError:
        return
    except Exception as error:
        raise ArtifactError(f"its parts do not fit together: {error}") from error
