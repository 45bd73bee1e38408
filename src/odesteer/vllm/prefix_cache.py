"""The prefix cache: keys and values that were steered are found again only where they belong.

vLLM finds a block of cached tokens by a hash of the tokens and of the blocks before it. Which of
the block's tokens are moved, by whom and how far, becomes part of that hash. So requests share
what is computed alike: all of a prompt that is moved alike, and, where only its end is moved, all
of it before its end, with unsteered requests too. A salt on the whole request would not do: a
token that is the last of one prompt, and steered, is in the middle of a longer one, and is not.
"""

from functools import wraps
from typing import Any

from odesteer.vllm.compatibility import require
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import plugin_steerers


def patch_prefix_cache() -> None:
    """Let hashes of blocks tell steered tokens from others."""
    from vllm.v1.core import kv_cache_utils

    # Called once for each block of each request, with the place of the block.
    require(kv_cache_utils, "_gen_prompt_embeds_extra_hash_keys", "generate_block_hash_extra_keys")
    keys = kv_cache_utils._gen_prompt_embeds_extra_hash_keys

    @wraps(keys)
    def keys_of_block(request: Any, start: int, stop: int) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = keys(request, start, stop)
        text = requested_steering(request.sampling_params)
        if text is None:
            return found
        key = plugin_steerers().steering(text).block_key(start, stop, request.num_prompt_tokens)
        return found if key is None else [*found, ("odesteer", key)]

    kv_cache_utils._gen_prompt_embeds_extra_hash_keys = keys_of_block
