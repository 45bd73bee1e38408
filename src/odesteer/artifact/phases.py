"""Phases of a text, such as thinking: where markers end in token ids, and which tokens lie between.

Words for phases are in `odesteer.artifact.positions`.
"""

from collections.abc import Sequence
from typing import Any

from odesteer.artifact.positions import Phase

PADDING = -1

_UNKNOWN = "\ufffd"  # a part of a character


class MarkerReader:
    """Finds where markers end in token ids.

    Markers are looked for in the decoded text, so they may be special tokens or any other text,
    however it is cut into tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def ends_with_last(self, tokens: Sequence[int], marker: str) -> bool:
        """Whether the last of the tokens ends a marker that lies wholly in them."""
        piece = self._piece(tokens[-1])
        if marker[-1] not in piece and _UNKNOWN not in piece and not marker[-1].isspace():
            return False
        # A token may be one byte, and decoders may strip the beginning of a text.
        tail = list(tokens[-len(marker.encode()) - 2 :])
        return self._decode(tail).count(marker) > self._decode(tail[:-1]).count(marker)

    def encode(self, marker: str) -> list[int]:
        """A marker in tokens."""
        ids: list[int] = self._tokenizer.encode(marker, add_special_tokens=False)
        return ids

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._decode([token])
        return self._pieces[token]

    def _decode(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class PhasedText:
    """One text, token by token, and which of its tokens lie in a phase.

    Attributes:
        tokens: their ids; `PADDING` where there is none.
    """

    def __init__(self, tokens: Sequence[int], reader: MarkerReader) -> None:
        self.tokens = list(tokens)
        self._reader = reader
        self._states: dict[Phase, tuple[int, list[bool]]] = {}

    def continue_from(self, start: int, tokens: Sequence[int]) -> None:
        """Replace everything from a token on; draft tokens are replaced so."""
        self.tokens[start:] = tokens
        for _, states in self._states.values():
            del states[start:]

    def in_phase(self, phase: Phase, end: int, start: int) -> list[bool]:
        """Of each token from ``start`` on, whether the next one is chosen in a phase.

        ``end`` is where the prompt ends.
        """
        flip = phase.kind == "outside"
        return [state != flip for state in self._known_states(phase, end)[start:]]

    def _known_states(self, phase: Phase, end: int) -> list[bool]:
        """Of each token, whether a block is open, or the marker has come, at its end."""
        key = Phase("inside", phase.opening, phase.closing) if phase.opening else phase
        known_end, states = self._states.get(key, (end, []))
        if known_end != end:  # another turn: what was generated before is its prompt
            states = []
        self._states[key] = end, states
        first = 0 if phase.opening else end
        seen = [token for token in self.tokens[first : len(states)] if token != PADDING]
        for number in range(len(states), len(self.tokens)):
            state = states[-1] if states else False
            if number >= first and self.tokens[number] != PADDING:
                seen.append(self.tokens[number])
                if self._reader.ends_with_last(seen, phase.closing):
                    state = not phase.opening
                elif phase.opening and self._reader.ends_with_last(seen, phase.opening):
                    state = True
            states.append(state)
        return states
