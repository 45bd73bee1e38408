"""Self-test at start-up, on a test double of two layers."""

from typing import Any

import pytest
import torch
from engines import needs_vllm
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.vllm import custom_op
from odesteer.vllm.self_test import check_steering
from odesteer.vllm.step import SteeringStep


class Runner:
    """Two layers; each calls the operation, or does not (silent), or on a copy (copies)."""

    max_num_tokens = 3

    def __init__(self, *layers: str) -> None:
        self.layers = layers

    def _dummy_run(self, n_tokens: int, **kwargs: bool) -> tuple[Tensor, Tensor]:
        assert kwargs == {"force_attention": True}
        hidden = torch.arange(1.0, 2 * n_tokens + 1).view(n_tokens, 2)
        step = custom_op.current_step()
        for number, kind in enumerate(self.layers):
            for operation in step.at(number) if step and kind != "silent" else ():
                operation.apply(hidden.clone() if kind == "copies" else hidden, None)
            hidden = torch.relu(hidden) + 1
        return hidden, hidden


def test_a_model_that_is_steered_passes() -> None:
    all_steerers = SteeringStep({})
    check_steering(Runner("steered", "steered"), [0, 1], all_steerers)
    assert all_steerers.visited == {0, 1}
    assert custom_op.current_step() is None
    check_steering(Runner("silent", "steered"), [1], SteeringStep({}))


def test_a_layer_that_does_not_call_the_operation_is_named() -> None:
    with pytest.raises(ModelError, match=r"layers \[1\] of the running model do not call"):
        check_steering(Runner("steered", "silent"), [0, 1], SteeringStep({}))


def test_an_operation_without_an_effect_is_an_error() -> None:
    with pytest.raises(ModelError, match="the same whether activations are moved or not"):
        check_steering(Runner("steered", "copies"), [1], SteeringStep({}))


@needs_vllm
def test_block_keys_that_ignore_steering_refuse_to_serve(environment: dict[str, str]) -> None:
    """A version of vLLM that asks for the keys of fewer blocks, or by another function."""
    from vllm.utils.hashing import sha256
    from vllm.v1.core import kv_cache_utils

    from odesteer.vllm.plugin import register
    from odesteer.vllm.prefix_cache import check_block_hashes
    from odesteer.vllm.steerers import plugin_steerers

    register()
    kv_cache_utils.init_none_hash(sha256)
    names = plugin_steerers().usable_names()
    assert names
    hasher = kv_cache_utils.get_request_block_hasher(16, sha256)  # tests itself, too
    check_block_hashes(hasher, 16, names)

    def deaf(request: Any) -> Any:
        request.sampling_params.extra_args = None
        return hasher(request)

    with pytest.raises(ModelError, match="have the same keys in vLLM's prefix cache"):
        check_block_hashes(deaf, 16, names)
