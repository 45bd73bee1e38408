"""Validation of requests in the front end: bad steering fails that request alone, with a 400."""

from functools import wraps
from typing import Any

from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.vllm.compatibility import require_signature
from odesteer.vllm.config import model_shape
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import plugin_steerers


def patch_request_validation() -> None:
    """Let the front end refuse requests, with a `ValueError` that its server turns into a 400.

    The error comes when the server calls `generate`, not with the first token: a stream has then
    sent its status already.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor

    generate = require_signature(AsyncLLM, "generate", ("self", "prompt", "sampling_params"))
    process = require_signature(
        InputProcessor, "process_inputs", ("self", "request_id", "prompt", "params")
    )

    class RefusedRequestError(VLLMValidationError, InvalidInputError):  # type: ignore[misc]
        """A client's error, for vLLM and for callers that catch `ValueError`."""

    def check(config: Any, params: Any) -> None:
        try:
            text = requested_steering(params)
            if text is not None:
                plugin_steerers().check(text, model_shape(config))
        except OdesteerError as error:
            raise RefusedRequestError(str(error)) from error

    @wraps(generate)
    def checked_generate(
        self: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        check(self.vllm_config, sampling_params)
        return generate(self, prompt, sampling_params, *args, **kwargs)

    @wraps(process)
    def checked_process(
        self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        check(self.vllm_config, params)
        return process(self, request_id, prompt, params, *args, **kwargs)

    AsyncLLM.generate, InputProcessor.process_inputs = checked_generate, checked_process
