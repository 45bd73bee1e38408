"""Which positions of a forward pass a steerer moves."""


def steered_columns(
    position: str, length: int, past: int = 0, prompt_width: int | None = None
) -> range:
    """The columns of one forward pass that a steerer at ``position`` moves.

    Args:
        position: `last`, the last position of every forward pass: the last prompt token, then
            each generated one (arXiv 2602.17560); `generated`, the tokens that the model has
            generated, as they are fed back to it; `prompt`, all tokens of the prompt; `all`.
        length: number of columns in this pass.
        past: number of columns before them, held in a cache.
        prompt_width: number of columns, from the first, that are the prompt. Where it is None
            a pass with one column and a cache is taken for generation, any other for a prompt.

    With a known ``prompt_width``, `last` moves what generation token by token would have moved
    (every column from the last of the prompt on), however many of them one pass holds: so
    scoring a whole sequence, or generating without a cache, agrees with generating.

    Columns of a batch that is padded on the left; padding itself is excluded elsewhere.
    """
    if position == "all":
        return range(length)
    if prompt_width is None:
        if position == "last":
            return range(length - 1, length)
        decoding = past > 0 and length == 1
        return range(length) if decoding == (position == "generated") else range(0)
    first = prompt_width - (position == "last")
    split = min(max(first - past, 0), length)
    return range(split) if position == "prompt" else range(split, length)
