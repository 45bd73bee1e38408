"""Detokenizing generated tokens, whole or streamed to a callback."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

# Number of prompt tokens that are decoded along, for leading spaces and characters of several
# tokens.
_PROMPT_TOKENS = 8
_INCOMPLETE = "\ufffd"
_MAX_TOKENS = 4  # of a character: one a byte

StreamCallback = Callable[[int, str], None]
"""Called with the row and a piece of its text, as the text grows."""


class Detokenizer:
    """Text of tokens behind a prompt, piece by piece; the token_texts add up to the text."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_PROMPT_TOKENS:])
        self._start, self._read = 0, len(self._ids)

    def push(self, token: int) -> str:
        """The text that one more token completes; empty inside a character of several tokens."""
        self._ids.append(token)
        return self._piece(flush=False)

    def flush(self) -> str:
        """What is left at the end, complete or not."""
        return self._piece(flush=True)

    def _piece(self, flush: bool) -> str:
        known = self._decode(self._ids[self._start : self._read])
        text = self._decode(self._ids[self._start :])
        waiting = len(self._ids) - self._read < _MAX_TOKENS and not flush
        if len(text) <= len(known) or (text.endswith(_INCOMPLETE) and waiting):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def token_texts(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> list[str]:
    """The text that each token completes; they add up to the whole text."""
    detokenizer = Detokenizer(tokenizer, prompt)
    parts = [detokenizer.push(token) for token in ids]
    if parts:
        parts[-1] += detokenizer.flush()
    return parts


class RowStreamer:
    """A streamer of transformers that passes the text of each row to a callback."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        stops: Sequence[int],
        call: StreamCallback,
    ) -> None:
        self._rows: list[Detokenizer | None] = [Detokenizer(tokenizer, ids) for ids in prompts]
        self._stops = frozenset(stops)
        self._call = call
        self._is_prompt = True

    def put(self, tokens: Tensor) -> None:
        """Take the prompts, then the next token of each row, or the next tokens of a single row."""
        if self._is_prompt:
            self._is_prompt = False
            return
        new = tokens.flatten().tolist()
        rows = range(len(new)) if len(self._rows) > 1 else [0] * len(new)
        for row, token in zip(rows, new, strict=True):
            detokenizer = self._rows[row]
            if detokenizer is None:
                continue
            stopped = token in self._stops
            self._emit(row, detokenizer.flush() if stopped else detokenizer.push(token))
            if stopped:
                self._rows[row] = None

    def end(self) -> None:
        """Flush the text that is left."""
        for row, detokenizer in enumerate(self._rows):
            if detokenizer is not None:
                self._emit(row, detokenizer.flush())

    def _emit(self, row: int, text: str) -> None:
        if text:
            self._call(row, text)
