"""Which tokens of a request a steerer moves."""


def moved_tokens(position: str, start: int, stop: int, prompt_length: int) -> range:
    """Those of the tokens ``start`` to ``stop`` of a request that a steerer at ``position`` moves.

    Tokens are counted from the first of the prompt, so that it does not matter in which pieces
    they are computed, or how often: `last` are the last of the prompt and all generated ones.
    """
    first = {"last": prompt_length - 1, "generated": prompt_length}.get(position, 0)
    last = min(prompt_length, stop) if position == "prompt" else stop
    first = max(first, start)
    return range(first, max(last, first))
