"""The configuration of an engine that steers: what is added to it, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import needs_vllm

from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA
from odesteer.vllm.config import check_config, described
from odesteer.vllm.custom_op import NAME
from odesteer.vllm.steerers import PluginSteerers


def known(*layers: int) -> PluginSteerers:
    method = CAA().fit(torch.ones(2, 3), torch.tensor([[0.0] * 3, [0.5] * 3]))
    return PluginSteerers({f"at{layer}": Steerer(method, Site(layer)) for layer in layers})


def config(steered: Any, *, ubatching: bool = False, ranks: int = 1, full: bool = False) -> Any:
    return SimpleNamespace(
        additional_config={"odesteer": steered},
        parallel_config=SimpleNamespace(
            use_ubatching=ubatching, prefill_context_parallel_size=ranks
        ),
        compilation_config=SimpleNamespace(
            cudagraph_mode=SimpleNamespace(has_full_cudagraphs=lambda: full)
        ),
    )


def test_graphs_depend_on_the_layers_and_not_on_the_steerers() -> None:
    assert described(known(2, 1)) == described(known(1, 2))
    assert described(known(1)) != described(known(2))
    assert described(known(1))["op"] == NAME


def test_a_configuration_that_steers_is_accepted() -> None:
    check_config(config(described(known(1))), known(1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ubatching": True}, "micro-batching"),
        ({"ranks": 2}, "prefill context parallelism"),
        ({"full": True}, "full CUDA graphs"),
    ],
)
def test_modes_in_which_rows_move_about_are_refused(changes: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"steering does not work with {reason}"):
        check_config(config(described(known(1)), **changes), known(1))


@pytest.mark.parametrize("steered", [None, {}, described(known(2))])
def test_processes_with_different_steerers_are_refused(steered: Any) -> None:
    with pytest.raises(ModelError, match="set ODESTEER_STEERERS alike for all"):
        check_config(config(steered), known(1))


@needs_vllm
def test_graphs_are_cut_around_the_operation(environment: dict[str, str]) -> None:
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode

    from odesteer.vllm.plugin import register

    register()
    cut = CompilationConfig(mode=CompilationMode.VLLM_COMPILE)
    cut.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
    cut.set_splitting_ops_for_v1(all2all_backend="naive")
    assert cut.splitting_ops.count(NAME) == 1
    assert len(cut.splitting_ops) > 1
    assert cut.cudagraph_mode == CUDAGraphMode.PIECEWISE
    cut.set_splitting_ops_for_v1(all2all_backend="naive")
    assert cut.splitting_ops.count(NAME) == 1


@needs_vllm
def test_the_hash_that_finds_graphs_knows_of_the_operation() -> None:
    from vllm.config import VllmConfig

    plain = VllmConfig().compute_hash()
    steered = VllmConfig(additional_config={"odesteer": described(known(1))}).compute_hash()
    other = VllmConfig(additional_config={"odesteer": described(known(2))}).compute_hash()
    assert len({plain, steered, other}) == 3
