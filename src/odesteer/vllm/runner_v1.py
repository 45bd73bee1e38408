"""Model runner V1 (`vllm.v1.worker.gpu_model_runner`): the one on CPUs."""

from typing import Any

from odesteer.vllm.compatibility import require
from odesteer.vllm.custom_op import running
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import PluginSteerers
from odesteer.vllm.step import StepBatch, StepPlanner


def fits(runner: Any) -> bool:
    return hasattr(runner, "_prepare_inputs")


def attach(runner: Any, catalogue: PluginSteerers, planner: StepPlanner) -> None:
    """Steer what the runner runs. Raises `ModelError` if it lacks what that needs.

    Only steps with requests go through `_model_forward`; dummy runs call the model itself.
    """
    require(runner, "_model_forward", "input_batch", "requests", "query_start_loc", "_dummy_run")
    require(runner.input_batch, "req_ids", "num_computed_tokens_cpu", "num_prompt_tokens")
    require(runner.query_start_loc, "np")
    forward = runner._model_forward

    def model_forward(*args: Any, **kwargs: Any) -> Any:
        with running(planner.step(_batch(runner, catalogue))):
            return forward(*args, **kwargs)

    runner._model_forward = model_forward


def _batch(runner: Any, catalogue: PluginSteerers) -> StepBatch:
    batch, requests = runner.input_batch, runner.requests
    texts = [requested_steering(requests[request].sampling_params) for request in batch.req_ids]
    n = len(texts)
    return StepBatch(
        steerings=[None if text is None else catalogue.steering(text) for text in texts],
        rows=runner.query_start_loc.np[: n + 1].copy(),
        starts=batch.num_computed_tokens_cpu[:n].copy(),
        prompts=batch.num_prompt_tokens[:n].copy(),
    )
