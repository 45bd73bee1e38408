"""Prefix cache: steered tokens become part of the keys of cache blocks.

vLLM finds a block of cached tokens by a hash of its tokens and of the blocks before it. Which of
its tokens are moved, by which steerer and how far, is added to that hash. So requests share what
is computed alike: prompts that are moved alike and, where only the end of the prompt is moved,
everything before it, with unsteered requests too. A salt on the whole request would be wrong: the
last token of a prompt, steered, is in the middle of a longer prompt, where it is not steered.
"""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from odesteer.artifact.phases import MarkerReader, PhasedText
from odesteer.artifact.positions import parse_position
from odesteer.errors import ModelError
from odesteer.vllm.compatibility import replace_everywhere, require_signature, unsupported
from odesteer.vllm.request_steering import EXTRA_ARG, RequestSteering, requested_steering
from odesteer.vllm.steerers import plugin_steerers
from odesteer.vllm.texts import marker_reader, scheduled_text, use_tokenizer_of

BlockHasher = Callable[[Any], Sequence[Any]]
"""Returns the hashes of a request's whole blocks that have none yet."""


def patch_prefix_cache() -> None:
    """Add steering to the keys of cache blocks, and test that when the cache is made."""
    from vllm.v1.core import kv_cache_utils

    make_keys = require_signature(
        kv_cache_utils,
        "generate_block_hash_extra_keys",
        ("request", "start_token_idx", "end_token_idx", "start_mm_idx"),
    )
    make_hasher = require_signature(
        kv_cache_utils, "get_request_block_hasher", ("hash_block_size", "caching_hash_fn")
    )

    resolve = require_signature(
        kv_cache_utils, "resolve_kv_cache_block_sizes", ("kv_cache_config", "vllm_config")
    )

    @wraps(make_keys)
    def extra_keys(request: Any, start_token_idx: int, end_token_idx: int, *args: Any) -> Any:
        keys, next_mm_idx = make_keys(request, start_token_idx, end_token_idx, *args)
        text = requested_steering(request.sampling_params)
        if text is None:
            return keys, next_mm_idx
        steering = plugin_steerers().steering(text)
        read = scheduled_text(request, end_token_idx) if steering.reads_text else None
        key = steering.block_key(start_token_idx, end_token_idx, request.num_prompt_tokens, read)
        if key is None:
            return keys, next_mm_idx
        return (*(keys or ()), ("odesteer", key)), next_mm_idx

    @wraps(make_hasher)
    def checked_hasher(hash_block_size: int, *args: Any, **kwargs: Any) -> BlockHasher:
        hasher: BlockHasher = make_hasher(hash_block_size, *args, **kwargs)
        check_block_hashes(hasher, hash_block_size, plugin_steerers().usable_names())
        return hasher

    @wraps(resolve)
    def noted_sizes(kv_cache_config: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        use_tokenizer_of(vllm_config.model_config)  # the hasher, made next, is not told
        return resolve(kv_cache_config, vllm_config, *args, **kwargs)

    replace_everywhere(make_keys, extra_keys)
    replace_everywhere(resolve, noted_sizes)
    replace_everywhere(make_hasher, checked_hasher)


def check_block_hashes(hasher: BlockHasher, block_size: int, names: Sequence[str]) -> None:
    """Hash fake requests that differ in steering only. Raises `ModelError` if they are equal.

    Each has blocks of prompt and blocks of text, so that every position moves a token of them.
    """
    reader = marker_reader()
    for name in names:
        steering = plugin_steerers().steering(name)
        if steering.reads_text and reader is None:
            continue  # no request for it is served
        prompt, text = _test_tokens(steering, reader, block_size)
        if reader is not None:
            whole = PhasedText([*prompt, *text], reader)
            if steering.block_key(0, len(whole.tokens), len(prompt), whole) is None:
                logging.getLogger("vllm.odesteer").warning(
                    "%r will move nothing: this model has no tokens for the markers of its"
                    " position",
                    name,
                )
                continue
        plain = tuple(hasher(_fake_request("", prompt, text)))
        if len(plain) != (len(prompt) + len(text)) // block_size:
            raise unsupported(f"blocks of a request have {len(plain)} hashes")
        if tuple(hasher(_fake_request(name, prompt, text))) == plain:
            raise ModelError(
                f"requests steered by {name!r} and by nothing have the same keys in vLLM's prefix"
                " cache, so each would read what the other has computed; not served. Start with"
                " --no-enable-prefix-caching, and report this."
            )


def _test_tokens(
    steering: RequestSteering, reader: MarkerReader | None, block_size: int
) -> tuple[list[int], list[int]]:
    """Whole blocks of a prompt that opens every block of thinking, and of text with markers."""
    prompt, text = list[int](), list[int]()
    for each in steering.applied:
        phase = parse_position(each.site.position).phase
        if phase is None or reader is None:
            continue
        if phase.kind == "inside":
            prompt += reader.encode(phase.opening)
        elif phase.kind == "after":
            text += reader.encode(phase.closing)
    n_prompt, n_text = (block_size * max(-(-len(t) // block_size), 1) for t in (prompt, text))
    return [0] * (n_prompt - len(prompt)) + prompt, text + [0] * (n_text - len(text))


def _fake_request(steering: str, prompt: list[int], text: list[int]) -> Any:
    from vllm.v1.request import Request

    from vllm import SamplingParams

    try:
        params = SamplingParams(extra_args={EXTRA_ARG: steering} if steering else None)
        request = Request(
            request_id="odesteer-self-test",
            prompt_token_ids=prompt,
            sampling_params=params,
            pooling_params=None,
        )
        request.append_output_token_ids(text)
    except (TypeError, AttributeError) as error:
        raise unsupported(f"a request cannot be made for the self-test: {error}") from error
    return request
