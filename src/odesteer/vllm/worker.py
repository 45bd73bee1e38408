"""The worker: hooks go onto the model when it is loaded, and are tested when it is ready."""

from functools import wraps
from typing import Any

from odesteer.vllm import custom_op as op
from odesteer.vllm import runner_v1, runner_v2
from odesteer.vllm.compatibility import require, unsupported
from odesteer.vllm.config import check_config, model_shape
from odesteer.vllm.hooks import find_layers, place_hooks
from odesteer.vllm.self_test import check_steering, n_rows
from odesteer.vllm.steerers import plugin_steerers
from odesteer.vllm.step import StepPlanner

_RUNNERS = (runner_v1, runner_v2)


def patch_worker() -> None:
    """Let every worker steer. Workers of other devices than GPUs inherit from this one."""
    from vllm.v1.worker.gpu_worker import Worker

    require(Worker, "load_model", "compile_or_warm_up_model")
    load = Worker.load_model

    @wraps(load)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        attach(self)
        return result

    Worker.load_model = load_model


def attach(worker: Any) -> None:
    """Make a worker with a loaded model steer it.

    Raises `ModelError` where the model or this vLLM is built in another way than is known.
    """
    config, runner, known = worker.vllm_config, worker.model_runner, plugin_steerers()
    check_config(config, known)
    model = model_shape(config)
    adapter = next((each for each in _RUNNERS if each.fits(runner)), None)
    if adapter is None:
        raise unsupported(f"its model runner is {type(runner).__module__}")
    op.register()
    numbers = known.layers(model)
    here = place_hooks(find_layers(runner.get_model(), model.n_layers), numbers) if numbers else ()
    planner = StepPlanner(worker.device)
    adapter.attach(runner, known, planner)
    make_ready = worker.compile_or_warm_up_model

    def compile_or_warm_up_model(*args: Any, **kwargs: Any) -> Any:
        result = make_ready(*args, **kwargs)
        if here:
            check_steering(runner, here, planner.whole(known.probe(model), n_rows(runner)))
        return result

    worker.compile_or_warm_up_model = compile_or_warm_up_model
