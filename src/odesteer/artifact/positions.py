"""Steering positions: the words for the tokens that a steerer moves, windows and phases among them.

    last            the positions that each next token is chosen from: the last prompt token, then
                    each generated one
    generated       the generated tokens, as they are fed back
    prompt, all     the tokens of the prompt; all tokens
    last:A:B        of them those numbered A to B, as a slice of Python: `last::1` is the last
    generated:A:B   prompt token alone, `generated::32` are the first 32 generated tokens,
                    `generated:32:` those behind them
    thinking        of `last` those inside a thinking block: the next token is a thought
    answer          of `last` those outside of thinking blocks
    after:MARKER    of `last` those from the first MARKER in the generated text on

A thinking block begins with `<think>` and ends with `</think>`; `thinking:OPEN..CLOSE` and
`answer:OPEN..CLOSE` say otherwise, as in ``thinking:[THINK]..[/THINK]``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from odesteer.errors import InvalidInputError

POSITIONS = ("last", "generated", "prompt", "all")
POSITION_FORMS = (
    "last, generated, prompt, all, last:A:B, generated:A:B, thinking, answer,"
    " thinking:OPEN..CLOSE, answer:OPEN..CLOSE or after:MARKER"
)
_MAX_LENGTH = 200
_BLOCK = ("<think>", "</think>")


@dataclass(frozen=True)
class Phase:
    """A part of a text that markers in it delimit.

    Attributes:
        kind: inside a block, outside of blocks, or after a marker.
        opening: the marker that a block begins with; empty for a phase after a marker.
        closing: the marker that ends a block, or after which the phase is.
    """

    kind: Literal["inside", "outside", "after"]
    opening: str
    closing: str


@dataclass(frozen=True)
class SteerPosition:
    """A position, read from its words.

    Attributes:
        tokens: `last`, `generated`, `prompt` or `all`.
        start: the first of these tokens, counted from zero.
        stop: the end of them; None for all.
        phase: the part of the text that they must lie in; None for all of it.
    """

    tokens: str
    start: int = 0
    stop: int | None = None
    phase: Phase | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is one of the four words alone."""
        return self.start == 0 and self.stop is None and self.phase is None

    @property
    def is_behind_prompt(self) -> bool:
        """Whether it is counted from the end of the prompt."""
        return self.tokens in ("last", "generated")

    @property
    def lead(self) -> int:
        """How many tokens before the end of the prompt it begins, without a window."""
        return int(self.tokens == "last")

    def __str__(self) -> str:
        if self.phase is not None:
            if self.phase.kind == "after":
                return f"after:{self.phase.closing}"
            word = "thinking" if self.phase.kind == "inside" else "answer"
            markers = (self.phase.opening, self.phase.closing)
            return word if markers == _BLOCK else f"{word}:{'..'.join(markers)}"
        if self.is_plain:
            return self.tokens
        return f"{self.tokens}:{self.start}:{'' if self.stop is None else self.stop}"


@lru_cache(maxsize=256)
def parse_position(text: str) -> SteerPosition:
    """The position that words mean. Raises `InvalidInputError` for any others."""
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        raise InvalidInputError(f"position must be one of {POSITION_FORMS}, not {text!r:.80}.")
    word, colon, rest = text.partition(":")
    if not colon and word in POSITIONS:
        return SteerPosition(word)
    if word in ("thinking", "answer") and (rest or not colon):
        markers = tuple(rest.split("..")) if colon else _BLOCK
        if len(markers) == 2 and all(markers):
            opening, closing = markers
            if opening != closing:
                kind: Literal["inside", "outside"] = "inside" if word == "thinking" else "outside"
                return SteerPosition("last", phase=Phase(kind, opening, closing))
        raise InvalidInputError(
            f"position {text!r}: write {word}:OPEN..CLOSE with two different markers, as in"
            f" {word}:[THINK]..[/THINK]."
        )
    if word == "after" and colon:
        if not rest:
            raise InvalidInputError(f"position {text!r} has no marker; write after:MARKER.")
        return SteerPosition("last", phase=Phase("after", "", rest))
    if word in POSITIONS and rest.count(":") == 1:
        return _window(text, word, *rest.split(":"))
    raise InvalidInputError(f"position must be one of {POSITION_FORMS}, not {text!r}.")


def _window(text: str, word: str, start: str, stop: str) -> SteerPosition:
    if word not in ("last", "generated"):
        raise InvalidInputError(
            f"position {text!r}: only last and generated have windows, which count from the end of"
            " the prompt."
        )
    numbers = []
    for number in (start, stop):
        if number.startswith("-") and number[1:].isdecimal():
            raise InvalidInputError(
                f"position {text!r} counts from the end of the text, which is not known while it is"
                f" generated; count from its beginning: with max_new_tokens=128 the last 32 are"
                f" {word}:96:."
            )
        if number and not (number.isascii() and number.isdecimal()):
            raise InvalidInputError(
                f"position {text!r}: {number!r} is no number; write {word}:A:B with numbers from"
                f" zero, as in {word}:0:32."
            )
        numbers.append(int(number) if number else None)
    first, end = numbers[0] or 0, numbers[1]
    if end is not None and end <= first:
        raise InvalidInputError(f"position {text!r} holds no token: {end} is not behind {first}.")
    return SteerPosition(word, first, end)
