"""Patch of vLLM's worker: hooks when the model is loaded, self-test when it is ready."""

import logging
from functools import wraps
from typing import Any

from odesteer.vllm import custom_op, runner_v1, runner_v2
from odesteer.vllm.compatibility import require_signature, unsupported
from odesteer.vllm.config import check_config, model_shape
from odesteer.vllm.hooks import add_hooks, find_layers
from odesteer.vllm.self_test import check_steering, n_rows
from odesteer.vllm.steerers import plugin_steerers
from odesteer.vllm.step import StepPlanner
from odesteer.vllm.texts import use_tokenizer_of

_ADAPTERS = (runner_v1, runner_v2)


def patch_worker() -> None:
    """Let every worker steer. Workers of other devices than GPUs inherit from this one."""
    from vllm.v1.worker.gpu_worker import Worker

    load = require_signature(Worker, "load_model", ("self", "load_dummy_weights"))
    require_signature(Worker, "compile_or_warm_up_model", ("self",))

    @wraps(load)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        attach(self)
        return result

    Worker.load_model = load_model


def attach(worker: Any) -> None:
    """Make a worker steer its model, which is loaded.

    Raises `ModelError` where the model or this vLLM has other internals than expected.
    """
    config, runner, steerers = worker.vllm_config, worker.model_runner, plugin_steerers()
    check_config(config, steerers)
    model = model_shape(config)
    adapter = next((each for each in _ADAPTERS if each.fits(runner)), None)
    if adapter is None:
        raise unsupported(f"its model runner is {type(runner).__module__}")
    if adapter is runner_v2:
        logging.getLogger("vllm.odesteer").warning(
            "steering with vLLM's model runner V2 is experimental: its adapter has not run on a GPU"
            " yet; compare with python -m benchmarks.vllm_gpu, or set VLLM_USE_V2_MODEL_RUNNER=0."
        )
    use_tokenizer_of(config.model_config)
    custom_op.register()
    layers = steerers.layers(model)
    local = add_hooks(find_layers(runner.get_model(), model.n_layers), layers) if layers else ()
    planner = StepPlanner(worker.device)
    adapter.attach(runner, steerers, planner)
    warm_up = worker.compile_or_warm_up_model

    def compile_or_warm_up_model(*args: Any, **kwargs: Any) -> Any:
        result = warm_up(*args, **kwargs)
        if local:
            all_steerers = planner.on_all_rows(steerers.all_steering(model), n_rows(runner))
            check_steering(runner, local, all_steerers)
        return result

    worker.compile_or_warm_up_model = compile_or_warm_up_model
