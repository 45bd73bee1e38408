"""The custom operation ``odesteer_vllm::steer``, and the step that it applies.

It is opaque to the compiler: a compiled graph only knows that it changes the hidden states in
place; what it does is looked up when it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor

from odesteer.vllm.step import SteeringStep

OP_NAME = "odesteer_vllm::steer"

# Operations in a graph take tensors and numbers only, so the step is passed in this variable of
# the thread (the context) that runs the model.
_step: ContextVar[SteeringStep | None] = ContextVar("odesteer_step", default=None)


@contextmanager
def running_step(step: SteeringStep | None) -> Iterator[None]:
    """Forward passes inside apply this step."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def current_step() -> SteeringStep | None:
    """The step that forward passes apply now."""
    return _step.get()


def set_step(step: SteeringStep | None) -> None:
    """Replace the step inside `running_step`."""
    _step.set(step)


def steer(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    """Apply the current step at a layer to ``hidden``, `[n, d]`, in place."""
    torch.ops.odesteer_vllm.steer(hidden, residual, layer)


@lru_cache(maxsize=1)
def register() -> torch.library.Library:
    """Register the operation with torch, once a process; it lives as long as the library."""
    from vllm.utils.torch_utils import direct_register_custom_op

    library = torch.library.Library("odesteer_vllm", "FRAGMENT")  # type: ignore[no-untyped-call]
    direct_register_custom_op(
        "steer", _steer, mutates_args=["hidden"], fake_impl=_fake, target_lib=library
    )
    return library


# The schema is inferred from the annotations, which must be of the older kind.
def _steer(hidden: Tensor, residual: Optional[Tensor], layer: int) -> None:  # noqa: UP045
    step = current_step()
    if step is not None:
        for operation in step.at(layer):
            operation.apply(hidden, residual)


def _fake(hidden: Tensor, residual: Optional[Tensor], layer: int) -> None:  # noqa: UP045
    return None
