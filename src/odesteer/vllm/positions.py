"""Which tokens of a request a steerer moves."""


def moved_tokens(position: str, start: int, stop: int, prompt_length: int) -> range:
    """Those of the tokens ``start`` to ``stop`` of a request that a steerer at ``position`` moves.

    Tokens are counted from the first of the prompt, so that it does not matter in which pieces
    they are computed, or how often: `last` are the last of the prompt and all generated ones.
    """
    first, last = {
        "all": (0, stop),
        "prompt": (0, prompt_length),
        "last": (prompt_length - 1, stop),
        "generated": (prompt_length, stop),
    }[position]
    return range(max(first, start), max(min(last, stop), max(first, start)))
