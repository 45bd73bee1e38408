"""Model runner V1 (`vllm.v1.worker.gpu_model_runner`): the one on CPUs."""

from collections.abc import Iterator
from typing import Any

from odesteer.vllm.catalogue import Catalogue, wanted
from odesteer.vllm.op import running
from odesteer.vllm.requirements import require
from odesteer.vllm.step import Planner, Segment


def fits(runner: Any) -> bool:
    return hasattr(runner, "_prepare_inputs")


def attach(runner: Any, catalogue: Catalogue, planner: Planner) -> None:
    """Steer what the runner runs. Raises `ModelError` if it lacks what that needs.

    Only steps with requests go through `_model_forward`; dummy runs call the model itself.
    """
    require(runner, "_model_forward", "input_batch", "requests", "query_start_loc", "_dummy_run")
    require(runner.input_batch, "req_ids", "num_computed_tokens_cpu", "num_prompt_tokens")
    require(runner.query_start_loc, "np")
    forward = runner._model_forward

    def model_forward(*args: Any, **kwargs: Any) -> Any:
        with running(planner.step(_segments(runner, catalogue))):
            return forward(*args, **kwargs)

    runner._model_forward = model_forward


def _segments(runner: Any, catalogue: Catalogue) -> Iterator[Segment]:
    batch, rows = runner.input_batch, runner.query_start_loc.np
    for index, request in enumerate(batch.req_ids):
        text = wanted(runner.requests[request].sampling_params)
        if text is not None:
            first, last = int(rows[index]), int(rows[index + 1])
            start = int(batch.num_computed_tokens_cpu[index])
            yield Segment(
                steering=catalogue.steering(text),
                row=first,
                start=start,
                stop=start + last - first,
                prompt_length=int(batch.num_prompt_tokens[index]),
            )
