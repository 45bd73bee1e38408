"""Requests are checked before they are scheduled: what cannot be steered fails by itself."""

from functools import wraps
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.vllm.compatibility import require
from odesteer.vllm.config import model_shape
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import plugin_steerers


def patch_admission() -> None:
    """Let the front end refuse requests, with a `ValueError` that its server turns into a 400.

    The server is told when it asks for the tokens of a request, not when it waits for the first:
    a stream could no longer have that status.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor

    require(AsyncLLM, "generate")
    require(InputProcessor, "process_inputs")
    generate, process = AsyncLLM.generate, InputProcessor.process_inputs

    class RefusedRequestError(VLLMValidationError, InvalidInputError):  # type: ignore[misc]
        """What vLLM takes for the fault of a request, and Python for a `ValueError`."""

    def check(config: Any, params: Any) -> None:
        try:
            text = requested_steering(params)
            if text is not None:
                plugin_steerers().check(text, model_shape(config))
        except OdesteerError as error:
            raise RefusedRequestError(str(error)) from error

    @wraps(generate)
    def checked_generate(
        self: Any, prompt: Any, sampling_params: Any, *rest: Any, **named: Any
    ) -> Any:
        check(self.vllm_config, sampling_params)
        return generate(self, prompt, sampling_params, *rest, **named)

    @wraps(process)
    def checked_process(
        self: Any, request_id: str, prompt: Any, params: Any, *rest: Any, **named: Any
    ) -> Any:
        check(self.vllm_config, params)
        return process(self, request_id, prompt, params, *rest, **named)

    AsyncLLM.generate, InputProcessor.process_inputs = checked_generate, checked_process
