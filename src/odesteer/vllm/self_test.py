"""The test at start-up: a model that is not steered must not be served as if it were."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.vllm.custom_op import running
from odesteer.vllm.step import SteeringStep

_ROWS = 4


class Reversal:
    """Turns every activation around, which no layer behind can overlook."""

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """As `LayerOperation.apply`."""
        hidden.sub_(2 * (hidden if residual is None else hidden + residual))


def check_steering(runner: Any, layers: Sequence[int], all_at_work: SteeringStep) -> None:
    """Run dummy tokens through the model as it will be served, compiled and captured.

    Every steered layer must call the operation, and what the model returns when activations are
    moved there must differ from what it returns when they are not. Then every steerer is put to
    work once (``all_at_work``), which makes its kernels ready. Raises `ModelError`.
    """
    plain = _outputs(runner)
    step = SteeringStep({layer: [Reversal()] for layer in layers})
    with running(step):
        moved = _outputs(runner)
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
    with running(all_at_work):
        _outputs(runner)


def n_rows(runner: Any) -> int:
    """Number of tokens that the test runs."""
    return min(_ROWS, int(runner.max_num_tokens))


def _outputs(runner: Any) -> Tensor | None:
    """What the model returns for dummy tokens; None on ranks that pass it on to others.

    With attention: without, its outputs are whatever memory holds, and may be NaN throughout.
    """
    hidden, _ = runner._dummy_run(n_rows(runner), force_attention=True)
    return hidden[: n_rows(runner)].clone() if isinstance(hidden, Tensor) else None
