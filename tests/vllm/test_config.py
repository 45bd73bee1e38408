"""Configuration of a steered engine: what is added, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import needs_vllm

from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA
from odesteer.vllm.config import check_config, config_entry
from odesteer.vllm.custom_op import OP_NAME
from odesteer.vllm.steerers import PluginSteerers


def steerers(*layers: int) -> PluginSteerers:
    method = CAA().fit(torch.ones(2, 3), torch.tensor([[0.0] * 3, [0.5] * 3]))
    return PluginSteerers({f"at{layer}": Steerer(method, Site(layer)) for layer in layers})


def config(
    steered: Any,
    *,
    ubatching: bool = False,
    ranks: int = 1,
    full: bool = False,
    decode_ranks: int = 1,
    offloading: float | None = None,
    **transfers: object,
) -> Any:
    return SimpleNamespace(
        additional_config={"odesteer": steered},
        parallel_config=SimpleNamespace(
            use_ubatching=ubatching,
            prefill_context_parallel_size=ranks,
            decode_context_parallel_size=decode_ranks,
        ),
        cache_config=SimpleNamespace(kv_offloading_size=offloading),
        **{
            "kv_transfer_config": None,
            "ec_transfer_config": None,
            "speculative_config": None,
            **transfers,
        },
        compilation_config=SimpleNamespace(
            cudagraph_mode=SimpleNamespace(has_full_cudagraphs=lambda: full)
        ),
    )


def test_graphs_depend_on_the_layers_and_not_on_the_steerers() -> None:
    assert config_entry(steerers(2, 1)) == config_entry(steerers(1, 2))
    assert config_entry(steerers(1)) != config_entry(steerers(2))
    assert config_entry(steerers(1))["op"] == OP_NAME


def test_a_configuration_that_steers_is_accepted() -> None:
    check_config(config(config_entry(steerers(1))), steerers(1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ubatching": True}, "micro-batching"),
        ({"ranks": 2}, "prefill context parallelism"),
        ({"full": True}, "full CUDA graphs"),
    ],
)
def test_modes_that_reorder_rows_are_refused(changes: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"steering does not work with {reason}"):
        check_config(config(config_entry(steerers(1)), **changes), steerers(1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kv_transfer_config": object()}, "KV transfer"),
        ({"ec_transfer_config": object()}, "encoder transfer"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"offloading": 4.0}, "KV offloading"),
        ({"decode_ranks": 2}, "decode context parallelism"),
    ],
)
def test_modes_that_move_cached_keys_are_refused_until_tested(changes: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"not been tested with {reason}"):
        check_config(config(config_entry(steerers(1)), **changes), steerers(1))


@needs_vllm
def test_vllm_s_configuration_has_these_fields() -> None:
    from vllm.config import VllmConfig

    plain = VllmConfig(additional_config={"odesteer": config_entry(steerers(1))})
    check_config(plain, steerers(1))


@pytest.mark.parametrize("steered", [None, {}, config_entry(steerers(2))])
def test_processes_with_different_steerers_are_refused(steered: Any) -> None:
    with pytest.raises(ModelError, match="set ODESTEER_STEERERS alike for all"):
        check_config(config(steered), steerers(1))


@needs_vllm
def test_graphs_are_split_at_the_operation(environment: dict[str, str]) -> None:
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode

    from odesteer.vllm.plugin import register

    register()
    split = CompilationConfig(mode=CompilationMode.VLLM_COMPILE)
    split.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
    split.set_splitting_ops_for_v1(all2all_backend="naive")
    assert split.splitting_ops.count(OP_NAME) == 1
    assert len(split.splitting_ops) > 1
    assert split.cudagraph_mode == CUDAGraphMode.PIECEWISE
    split.set_splitting_ops_for_v1(all2all_backend="naive")
    assert split.splitting_ops.count(OP_NAME) == 1


@needs_vllm
def test_the_hash_of_the_configuration_depends_on_the_operation() -> None:
    from vllm.config import VllmConfig

    plain = VllmConfig().compute_hash()
    steered = VllmConfig(additional_config={"odesteer": config_entry(steerers(1))}).compute_hash()
    other = VllmConfig(additional_config={"odesteer": config_entry(steerers(2))}).compute_hash()
    assert len({plain, steered, other}) == 3
