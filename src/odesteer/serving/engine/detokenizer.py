"""Incremental detokenization of one sequence, with stop strings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from odesteer.models.generation.streaming import Detokenizer
from odesteer.serving.engine.output import GeneratedToken


class IncrementalDetokenizer:
    """Decodes tokens as they come; withholds those that may begin a stop string."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stop = stop
        self._withheld: list[GeneratedToken] = []

    def push(
        self, token_id: int, token: GeneratedToken, *, is_last: bool = False
    ) -> tuple[list[GeneratedToken], bool]:
        """Add a token; returns the tokens that can be sent, and whether a stop string came."""
        text = self._detokenizer.push(token_id)
        if is_last:
            text += self._detokenizer.flush()
        return self._add(replace(token, text=text))

    def end(self) -> tuple[list[GeneratedToken], bool]:
        """End the text; returns the tokens that are left, and whether a stop string came."""
        rest = self._detokenizer.flush()
        ready, stopped = self._add(GeneratedToken(rest)) if rest else ([], False)
        left, self._withheld = self._withheld, []
        return ready + left, stopped

    def _add(self, token: GeneratedToken) -> tuple[list[GeneratedToken], bool]:
        self._withheld.append(token)
        if not self._stop:
            ready, self._withheld = self._withheld, []
            return ready, False
        text = "".join(token.text for token in self._withheld)
        found = [start for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            ready, self._withheld = _truncated(self._withheld, min(found)), []
            return ready, True
        return self._release(_possible_stop(text, self._stop)), False

    def _release(self, end: int) -> list[GeneratedToken]:
        """Take the withheld tokens that lie wholly before character ``end``."""
        n = length = 0
        for token in self._withheld:
            length += len(token.text)
            if length > end:
                break
            n += 1
        ready, self._withheld = self._withheld[:n], self._withheld[n:]
        return ready


def _possible_stop(text: str, stop: Sequence[str]) -> int:
    """The first character of ``text`` from which a stop string may continue beyond its end."""
    longest = max(map(len, stop))
    for start in range(max(len(text) - longest + 1, 0), len(text)):
        if any(each.startswith(text[start:]) for each in stop):
            return start
    return len(text)


def _truncated(tokens: Sequence[GeneratedToken], end: int) -> list[GeneratedToken]:
    """The tokens before character ``end``, the last one shortened."""
    kept: list[GeneratedToken] = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(replace(token, text=token.text[:end]))
        end -= len(token.text)
    return kept
