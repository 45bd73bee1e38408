"""Token ids for padding and for the end of a text."""

from collections.abc import Sequence
from typing import Any


def pad_token_id(tokenizer: Any) -> int:
    """A token id for padding, which attention masks hide: PAD, else EOS, else 0."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
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
