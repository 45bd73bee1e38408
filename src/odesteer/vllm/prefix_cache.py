"""Prefix cache: steered tokens become part of the keys of cache blocks.

vLLM finds a block of cached tokens by a hash of its tokens and of the blocks before it. Which of
its tokens are moved, by which steerer and how far, is added to that hash. So requests share what
is computed alike: prompts that are moved alike and, where only the end of the prompt is moved,
everything before it, with unsteered requests too. A salt on the whole request would be wrong: the
last token of a prompt, steered, is in the middle of a longer prompt, where it is not steered.
"""

from functools import wraps
from typing import Any

from odesteer.vllm.compatibility import require_attributes
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import plugin_steerers


def patch_prefix_cache() -> None:
    """Add steering to the keys of cache blocks."""
    from vllm.v1.core import kv_cache_utils

    # Called for each block of each request, with the block's tokens.
    require_attributes(
        kv_cache_utils, "_gen_prompt_embeds_extra_hash_keys", "generate_block_hash_extra_keys"
    )
    original = kv_cache_utils._gen_prompt_embeds_extra_hash_keys

    @wraps(original)
    def extra_hash_keys(request: Any, start: int, stop: int) -> list[tuple[str, Any]]:
        keys: list[tuple[str, Any]] = original(request, start, stop)
        text = requested_steering(request.sampling_params)
        if text is None:
            return keys
        key = plugin_steerers().steering(text).block_key(start, stop, request.num_prompt_tokens)
        return keys if key is None else [*keys, ("odesteer", key)]

    kv_cache_utils._gen_prompt_embeds_extra_hash_keys = extra_hash_keys
