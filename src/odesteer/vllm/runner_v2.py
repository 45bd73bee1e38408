"""Model runner V2 (`vllm.v1.worker.gpu.model_runner`): the one on GPUs.

It keeps no sampling parameters, so what each request wants is noted when it is added.
"""

from typing import Any

from odesteer.vllm.compatibility import require
from odesteer.vllm.custom_op import become, now, running
from odesteer.vllm.request_steering import RequestSteering, requested_steering
from odesteer.vllm.steerers import PluginSteerers
from odesteer.vllm.step import StepBatch, StepPlanner


def fits(runner: Any) -> bool:
    return hasattr(runner, "prepare_inputs") and not hasattr(runner, "_prepare_inputs")


def attach(runner: Any, catalogue: PluginSteerers, planner: StepPlanner) -> None:
    """Steer what the runner runs. Raises `ModelError` if it lacks what that needs.

    The batch of a step is known in the middle of `execute_model`, which dummy runs go through
    without preparing inputs.
    """
    require(runner, "add_requests", "prepare_inputs", "_remove_request", "execute_model")
    require(runner, "req_states", "_dummy_run")
    require(runner.req_states, "prompt_len")
    require(runner.req_states.prompt_len, "np")
    add, remove = runner.add_requests, runner._remove_request
    prepare, execute = runner.prepare_inputs, runner.execute_model
    steered: dict[str, RequestSteering] = {}

    def add_requests(scheduler_output: Any) -> Any:
        result = add(scheduler_output)  # removes old requests of the same names
        for request in scheduler_output.scheduled_new_reqs:
            text = requested_steering(request.sampling_params)
            if text is not None:
                steered[request.req_id] = catalogue.steering(text)
        return result

    def remove_request(req_id: str) -> Any:
        steered.pop(req_id, None)
        return remove(req_id)

    def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
        batch = prepare(*args, **kwargs)
        become(planner.step(_batch(runner, batch, steered)))
        return batch

    def execute_model(*args: Any, **kwargs: Any) -> Any:
        with running(now()):
            return execute(*args, **kwargs)

    runner.add_requests, runner._remove_request = add_requests, remove_request
    runner.prepare_inputs, runner.execute_model = prepare_inputs, execute_model


def _batch(runner: Any, batch: Any, steered: dict[str, RequestSteering]) -> StepBatch:
    n, prompts = len(batch.req_ids), runner.req_states.prompt_len.np
    return StepBatch(
        steerings=[steered.get(request) for request in batch.req_ids],
        rows=batch.query_start_loc_np[: n + 1].copy(),
        starts=batch.num_computed_tokens_np[:n].copy(),
        prompts=prompts[batch.idx_mapping_np[:n]],
    )
