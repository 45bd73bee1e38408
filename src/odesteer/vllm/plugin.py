"""Entry point of the plugin; vLLM calls it in the front end, the engine core and the workers."""

import os
from functools import lru_cache

from odesteer.vllm.config import patch_config
from odesteer.vllm.prefix_cache import patch_prefix_cache
from odesteer.vllm.request_validation import patch_request_validation
from odesteer.vllm.steerers import ENV_VARIABLE
from odesteer.vllm.worker import patch_worker


@lru_cache(maxsize=1)
def register() -> None:
    """Make vLLM steer with the steerers that ODESTEER_STEERERS names.

    If it names none, requests for steerers are refused and nothing else is patched. Raises
    `ModelError` where vLLM is not built as expected.
    """
    patch_request_validation()
    # The steerers are loaded later: a CPU worker of vLLM inspects all loaded modules when it
    # starts, and fails at those of numba, which loading steerers imports.
    if os.environ.get(ENV_VARIABLE, "").strip():
        patch_config()
        patch_prefix_cache()
        patch_worker()
