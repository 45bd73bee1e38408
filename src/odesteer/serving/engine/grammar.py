"""JSON output: which tokens may come next (the library llguidance)."""

import json
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odesteer.errors import InvalidInputError, MissingDependencyError


class JsonGrammars:
    """Compiles JSON schemas for one tokenizer.

    Args:
        tokenizer: of Hugging Face, with a fast implementation.
        vocabulary: number of tokens that the model knows.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._hf_tokenizer = tokenizer
        self._vocabulary = vocabulary

    def matcher(self, schema: str) -> "JsonMatcher":
        """A matcher for one text.

        Raises `MissingDependencyError` without llguidance, and `InvalidInputError` for a schema
        that it does not take.
        """
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise MissingDependencyError(
                "this server was installed without llguidance, which response_format needs;"
                " pip install 'odesteer[json]', or leave response_format out."
            ) from error
        grammar = LLMatcher.grammar_from_json_schema(
            json.loads(schema), defaults={"whitespace_flexible": False}
        )
        wrong = LLMatcher.validate_grammar(grammar, self._tokenizer)
        if wrong:
            raise InvalidInputError(f"response_format: the schema cannot be followed: {wrong:.500}")
        return JsonMatcher(LLMatcher(self._tokenizer, grammar), self._tokenizer.vocab_size)

    @cached_property
    def _tokenizer(self) -> Any:
        import llguidance.hf

        try:
            return llguidance.hf.from_tokenizer(self._hf_tokenizer, n_vocab=self._vocabulary)
        except Exception as error:
            raise InvalidInputError(
                f"response_format: this model's tokenizer cannot be constrained ({error});"
                " leave it out."
            ) from error


class JsonMatcher:
    """Follows one text, and masks the tokens that may not come next."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = matcher
        self._vocabulary = vocabulary
        self._bits = allocate_token_bitmask(1, vocabulary)

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    def append(self, token: int) -> None:
        """Take the next token. Raises `RuntimeError` if it may not come."""
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar does not allow token {token}")

    def masked(self, logits: Tensor) -> Tensor:
        """``logits``, `[1, vocabulary]`, -inf where a token may not come next."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits, 0)
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._vocabulary]
        allowed = torch.zeros(logits.shape[1], dtype=torch.bool)
        allowed[: self._vocabulary] = torch.from_numpy(bits.astype(bool))
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)
