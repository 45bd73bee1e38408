"""What vLLM calls in each of its processes: the front end, the engine core, the workers."""

import os
from functools import lru_cache

from odesteer.vllm.config import patch_config
from odesteer.vllm.prefix_cache import patch_prefix_cache
from odesteer.vllm.request_validation import patch_admission
from odesteer.vllm.steerers import VARIABLE
from odesteer.vllm.worker import patch_worker


@lru_cache(maxsize=1)
def register() -> None:
    """Make vLLM steer with the steerers that ODESTEER_STEERERS names; entry point of the plugin.

    Without any, requests for one are refused and nothing else is touched. Raises `ModelError` where
    vLLM is not built as expected.
    """
    patch_admission()
    # The steerers are loaded later: on CPUs, vLLM goes through every module when a worker starts,
    # and fails at those of numba, which loading brings in.
    if os.environ.get(VARIABLE, "").strip():
        patch_config()
        patch_prefix_cache()
        patch_worker()
