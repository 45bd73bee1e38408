"""Token ids for padding and for the end of a text."""

import math
from collections.abc import Sequence
from typing import Any


def pad_token_id(tokenizer: Any, model: Any = None) -> int:
    """A token id for padding, which attention masks hide: PAD, else EOS, else 0.

    An id that the input embedding of ``model`` does not have is passed over: tokenizers often get
    a PAD token that the model never learned.
    """
    has_embedding = hasattr(model, "get_input_embeddings")
    weight = getattr(model.get_input_embeddings(), "weight", None) if has_embedding else None
    # Sharded or offloaded weights may be empty here.
    end = len(weight) if weight is not None and len(weight) else math.inf
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None and 0 <= token < end:
            return int(token)
    return 0


def stop_token_ids(model: Any, eos_token_id: int | Sequence[int] | None = None) -> list[int]:
    """Ids of the tokens that end a text: ``eos_token_id`` as it was given to `generate`, or else
    as the generation config of the model has it."""
    if eos_token_id is None:
        eos_token_id = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if eos_token_id is None:
        return []
    ids = eos_token_id if isinstance(eos_token_id, Sequence) else [eos_token_id]
    return [int(token) for token in ids]
