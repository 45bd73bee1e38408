"""Whether a method that was read from a file is one that can be used."""

from collections.abc import Mapping

import torch
from torch import Tensor

from odesteer.errors import ArtifactError, ConvergenceError, InvalidInputError
from odesteer.estimator import Estimator
from odesteer.methods import Amount, Method
from odesteer.untrusted import is_integer


def check_method(method: object, tensors: Mapping[str, Tensor]) -> Method:
    """The method, whose ``tensors`` these are. Raises `ArtifactError` if it cannot be used."""
    if not isinstance(method, Method):
        raise ArtifactError(f"its method is {type(method).__name__}, which is no Method.")
    _check_state(method, tensors)
    return method


def _check_state(method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Check what every fitted method has learned."""
    width, norm = getattr(method, "width_", None), getattr(method, "mean_norm_", None)
    if not is_integer(width, 1) or type(norm) is not float or not norm >= 0:
        raise ArtifactError(f"its method has width {width!r} and mean norm {norm!r}.")
    # A width beyond all tensors would make the first call allocate whatever a file asks for.
    if not any(width <= tensor.numel() for tensor in tensors.values()):
        raise ArtifactError(f"its method has width {width}, but no tensor is as long.")
    for part in _parts(method):
        if getattr(part, "width_", width) != width:
            raise ArtifactError(
                f"its method has width {width}, but its {part.family} has width {part.width_}."  # type: ignore[attr-defined]
            )


def _parts(estimator: Estimator) -> list[Estimator]:
    values = [*estimator.get_params().values(), *estimator.learned().values()]
    several = [item for value in values if isinstance(value, (list, tuple)) for item in value]
    parts = [value for value in [*values, *several] if isinstance(value, Estimator)]
    return [estimator, *(deeper for part in parts for deeper in _parts(part))]


def try_out(method: Method) -> None:
    """Steer one activation: parameters and tensors that do not fit each other come to light."""
    a = torch.ones(1, method.width_)
    try:
        # A level may have no meaning where the barrier does not tell the classes apart; that is
        # no fault of the file, if there is another way to steer.
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
