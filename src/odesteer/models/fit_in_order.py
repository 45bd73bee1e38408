"""Fitting layer by layer, each on activations that earlier layers have steered."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount, EndToEnd, Method
from odesteer.models.steered_model import SteeredModel


def fit_in_order(
    lm: SteeredModel,
    method: Method,
    data: ContrastData,
    layers: Sequence[int],
    *,
    amount: Amount | None = None,
    **arguments: Any,
) -> SteererSet:
    """A copy of ``method`` at each layer, fitted while the fits of earlier layers steer.

    `SteeredModel.fit` with several layers fits each to unsteered activations, so that what an
    earlier layer has done is done again. Here each layer learns what is left: the sequential form
    of PID steering (arXiv 2510.04309) and of Linear-AcT (arXiv 2410.23054). Positives are steered
    too, as the model will be. Takes a pass over the data for each layer.

    ``amount`` is that of the earlier layers meanwhile, their default without one; ``arguments`` are
    those of `SteeredModel.fit`. Raises `InvalidInputError` as that does, for layers given twice,
    and for methods that learn from several layers together: `EndToEnd`, shared barriers and planes.
    """
    if isinstance(method, EndToEnd):
        raise InvalidInputError(
            "EndToEnd trains several layers jointly; give the layers to SteeredModel.fit."
        )
    if method.fits_jointly:
        raise InvalidInputError(
            f"{method!r:.80} is fitted to several layers together, not one after another; give the"
            " layers to SteeredModel.fit."
        )
    ordered = sorted(layers)
    if not ordered or len(set(ordered)) < len(ordered):
        raise InvalidInputError(f"give one or more different layers, not {list(layers)}.")
    fitted: list[Steerer] = []
    for layer in ordered:
        with ExitStack() as stack:
            if fitted:
                quantity: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
                stack.enter_context(lm.steering(SteererSet(fitted), **quantity))
            fitted.append(lm.fit(method, data, layer, **arguments))
    return SteererSet(fitted)
