"""The one operation that the plugin adds to a model.

It is opaque to the compiler: a compiled graph only knows that it changes the hidden states in
place, and what it does to them is looked up when it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor

from odesteer.vllm.step import SteeringStep

NAME = "odesteer_vllm::steer"

# What a graph calls can be given tensors and numbers only, so the step waits here. It belongs to
# the thread (the context) that runs the model.
_now: ContextVar[SteeringStep | None] = ContextVar("odesteer_step", default=None)


@contextmanager
def running(step: SteeringStep | None) -> Iterator[None]:
    """While a model runs inside, its layers apply this step; afterwards nothing again."""
    token = _now.set(step)
    try:
        yield
    finally:
        _now.reset(token)


def now() -> SteeringStep | None:
    """The step that is running."""
    return _now.get()


def become(step: SteeringStep | None) -> None:
    """Inside `running`: from now on another step runs."""
    _now.set(step)


def steer(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    """Apply what the running step moves at a layer to ``hidden``, `[n, d]`, in place."""
    torch.ops.odesteer_vllm.steer(hidden, residual, layer)


@lru_cache(maxsize=1)
def register() -> torch.library.Library:
    """Make the operation known to torch, once a process; it lives as long as the library."""
    from vllm.utils.torch_utils import direct_register_custom_op

    library = torch.library.Library("odesteer_vllm", "FRAGMENT")  # type: ignore[no-untyped-call]
    direct_register_custom_op(
        "steer", _steer, mutates_args=["hidden"], fake_impl=_fake, target_lib=library
    )
    return library


# The schema is read from the annotations, which may not be of the newer kind.
def _steer(hidden: Tensor, residual: Optional[Tensor], layer: int) -> None:  # noqa: UP045
    step = now()
    if step is not None:
        for move in step.at(layer):
            move.apply(hidden, residual)


def _fake(hidden: Tensor, residual: Optional[Tensor], layer: int) -> None:  # noqa: UP045
    return None
