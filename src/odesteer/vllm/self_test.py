"""Self-test at start-up: refuse to serve if steering has no effect on the model's output."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.vllm.custom_op import running_step
from odesteer.vllm.step import SteeringStep

_MAX_ROWS = 4


class Negation:
    """A `LayerOperation` that negates every activation, which no later layer can ignore."""

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """As `LayerOperation.apply`."""
        hidden.sub_(2 * (hidden if residual is None else hidden + residual))


def check_steering(runner: Any, layers: Sequence[int], all_steerers: SteeringStep) -> None:
    """Run dummy tokens through the model as it will be served, compiled and captured.

    Every steered layer must call the operation, and the output must change when activations are
    moved there. Then every steerer is run once (``all_steerers``), which compiles its kernels.
    Raises `ModelError`.
    """
    plain = _dummy_output(runner)
    step = SteeringStep({layer: [Negation()] for layer in layers})
    with running_step(step):
        moved = _dummy_output(runner)
    silent = sorted(set(layers) - step.visited)
    if silent:
        raise ModelError(
            f"steering is not in effect: layers {silent} of the running model do not call the"
            " operation that steers. Remove vLLM's cache of compiled graphs (VLLM_CACHE_ROOT) or"
            " start with --enforce-eager, and report this."
        )
    if plain is not None and moved is not None and torch.equal(plain, moved):
        raise ModelError(
            "steering is not in effect: the model returns the same whether activations are moved"
            " or not. Start with --enforce-eager, and report this."
        )
    with running_step(all_steerers):
        _dummy_output(runner)


def n_rows(runner: Any) -> int:
    """Number of tokens that the test runs."""
    return min(_MAX_ROWS, int(runner.max_num_tokens))


def _dummy_output(runner: Any) -> Tensor | None:
    """The model's output for dummy tokens; None on pipeline ranks that pass theirs on.

    With attention: without it the outputs are uninitialised memory, and may be NaN.
    """
    hidden, _ = runner._dummy_run(n_rows(runner), force_attention=True)
    return hidden[: n_rows(runner)].clone() if isinstance(hidden, Tensor) else None
