"""Adapter of model runner V2 (`vllm.v1.worker.gpu.model_runner`), the default on GPUs.

It keeps no sampling parameters, so the steering of each request is noted when it is added.
"""

from typing import Any

from odesteer.vllm.compatibility import require_attributes, require_signature
from odesteer.vllm.custom_op import current_step, running_step, set_step
from odesteer.vllm.request_steering import RequestSteering, requested_steering
from odesteer.vllm.steerers import PluginSteerers
from odesteer.vllm.step import StepBatch, StepPlanner
from odesteer.vllm.texts import WorkerTexts


def fits(runner: Any) -> bool:
    """Whether a runner is of this kind."""
    return hasattr(runner, "prepare_inputs") and not hasattr(runner, "_prepare_inputs")


def attach(runner: Any, steerers: PluginSteerers, planner: StepPlanner) -> None:
    """Steer the forward passes of a runner. Raises `ModelError` if it lacks what that needs.

    The batch of a step is known in the middle of `execute_model`, which dummy runs go through
    without preparing inputs.
    """
    require_attributes(runner, "req_states")
    require_signature(runner, "_dummy_run", ("num_tokens",))
    require_attributes(runner.req_states, "prompt_len")
    require_attributes(runner.req_states.prompt_len, "np")
    add = require_signature(runner, "add_requests", ("scheduler_output",))
    remove = require_signature(runner, "_remove_request", ("req_id",))
    prepare = require_signature(runner, "prepare_inputs", ("scheduler_output",))
    execute = require_signature(runner, "execute_model", ("scheduler_output",))
    steerings: dict[str, RequestSteering] = {}
    texts = WorkerTexts()

    def add_requests(scheduler_output: Any) -> Any:
        result = add(scheduler_output)  # removes finished requests, whose ids may come again
        for request in scheduler_output.scheduled_new_reqs:
            text = requested_steering(request.sampling_params)
            if text is None:
                continue
            steering = steerings[request.req_id] = steerers.steering(text)
            if steering.reads_text:
                tokens = request.prefill_token_ids
                texts.begin(request.req_id, tokens, tokens)
        return result

    def remove_request(req_id: str) -> Any:
        steerings.pop(req_id, None)
        return remove(req_id)

    def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
        batch = prepare(*args, **kwargs)
        set_step(planner.step(_step_batch(runner, batch, steerings, texts)))
        return batch

    def execute_model(*args: Any, **kwargs: Any) -> Any:
        with running_step(current_step()):
            return execute(*args, **kwargs)

    runner.add_requests, runner._remove_request = add_requests, remove_request
    runner.prepare_inputs, runner.execute_model = prepare_inputs, execute_model


def _step_batch(
    runner: Any, batch: Any, steerings: dict[str, RequestSteering], texts: WorkerTexts
) -> StepBatch:
    n, prompt_lengths = len(batch.req_ids), runner.req_states.prompt_len.np
    found = StepBatch(
        steerings=[steerings.get(request) for request in batch.req_ids],
        row_offsets=batch.query_start_loc_np[: n + 1].copy(),
        first_tokens=batch.num_computed_tokens_np[:n].copy(),
        prompt_lengths=prompt_lengths[batch.idx_mapping_np[:n]],
    )
    if not found.reads_texts:
        return found
    texts.keep(steerings)
    return texts.give_to(found, batch.req_ids, batch.input_ids)
