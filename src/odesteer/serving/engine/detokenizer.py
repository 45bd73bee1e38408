"""The text of one row as it grows: what may be handed out, and where it ends."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from odesteer.models.detokenizing import Detokenizer
from odesteer.serving.engine.output import Token


class IncrementalDetokenizer:
    """Holds tokens back as long as a text that is to stop it may have begun in them."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = stops
        self._held: list[Token] = []

    def push(self, number: int, token: Token, *, is_last: bool = False) -> tuple[list[Token], bool]:
        """Take one more token; the tokens that may be handed out, and whether the text ends."""
        text = self._detokenizer.push(number)
        if is_last:
            text += self._detokenizer.flush()
        return self._grown(replace(token, text=text))

    def end(self) -> tuple[list[Token], bool]:
        """The tokens that are left when no more will come, and whether the rest stopped it."""
        rest = self._detokenizer.flush()
        done, stopped = self._grown(Token(rest)) if rest else ([], False)
        left, self._held = self._held, []
        return done + left, stopped

    def _grown(self, token: Token) -> tuple[list[Token], bool]:
        self._held.append(token)
        if not self._stops:
            done, self._held = self._held, []
            return done, False
        text = "".join(held.text for held in self._held)
        found = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            done, self._held = _cut(self._held, min(found)), []
            return done, True
        return self._take(_begun(text, self._stops)), False

    def _take(self, end: int) -> list[Token]:
        """The held tokens that lie wholly before a position."""
        n = reached = 0
        for token in self._held:
            reached += len(token.text)
            if reached > end:
                break
            n += 1
        done, self._held = self._held[:n], self._held[n:]
        return done


def _begun(text: str, stops: Sequence[str]) -> int:
    """Where in a text the first of the stops may have begun."""
    longest = max(map(len, stops))
    for start in range(max(len(text) - longest + 1, 0), len(text)):
        if any(stop.startswith(text[start:]) for stop in stops):
            return start
    return len(text)


def _cut(tokens: Sequence[Token], end: int) -> list[Token]:
    """The tokens before a position, the last one shortened."""
    cut: list[Token] = []
    for token in tokens:
        if end <= 0:
            break
        cut.append(replace(token, text=token.text[:end]))
        end -= len(token.text)
    return cut
