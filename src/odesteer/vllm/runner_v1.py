"""Adapter of model runner V1 (`vllm.v1.worker.gpu_model_runner`), the default on CPUs."""

from typing import Any

from odesteer.vllm.compatibility import require_attributes, require_signature
from odesteer.vllm.custom_op import running_step
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import PluginSteerers
from odesteer.vllm.step import StepBatch, StepPlanner
from odesteer.vllm.texts import WorkerTexts


def fits(runner: Any) -> bool:
    """Whether a runner is of this kind."""
    return hasattr(runner, "_prepare_inputs")


def attach(runner: Any, steerers: PluginSteerers, planner: StepPlanner) -> None:
    """Steer the forward passes of a runner. Raises `ModelError` if it lacks what that needs.

    Only steps with requests go through `_model_forward`; dummy runs call the model itself.
    """
    require_attributes(runner, "input_batch", "requests", "query_start_loc")
    require_signature(runner, "_dummy_run", ("num_tokens",))
    require_attributes(
        runner.input_batch, "req_ids", "num_computed_tokens_cpu", "num_prompt_tokens"
    )
    require_attributes(runner.query_start_loc, "np")
    require_attributes(runner, "input_ids")
    require_attributes(runner.input_ids, "gpu")
    forward = require_signature(runner, "_model_forward", ("input_ids", "positions"))

    texts = WorkerTexts()

    def model_forward(*args: Any, **kwargs: Any) -> Any:
        with running_step(planner.step(_step_batch(runner, steerers, texts))):
            return forward(*args, **kwargs)

    runner._model_forward = model_forward


def _step_batch(runner: Any, steerers: PluginSteerers, texts: WorkerTexts) -> StepBatch:
    batch, requests = runner.input_batch, runner.requests
    asked = [requested_steering(requests[request].sampling_params) for request in batch.req_ids]
    n = len(asked)
    found = StepBatch(
        steerings=[None if text is None else steerers.steering(text) for text in asked],
        row_offsets=runner.query_start_loc.np[: n + 1].copy(),
        first_tokens=batch.num_computed_tokens_cpu[:n].copy(),
        prompt_lengths=batch.num_prompt_tokens[:n].copy(),
    )
    if not found.reads_texts:
        return found
    texts.keep(requests)
    for request, steering in zip(batch.req_ids, found.steerings, strict=True):
        if steering is not None and steering.reads_text:
            state = requests[request]
            tokens = [*state.prompt_token_ids, *state.output_token_ids]
            texts.begin(request, state.prompt_token_ids, tokens)
    # From the device: with asynchronous scheduling the host does not have the last tokens yet.
    return texts.give_to(found, batch.req_ids, runner.input_ids.gpu)
