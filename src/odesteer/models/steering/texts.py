"""The texts of a batch, token by token, and which of them lie in a phase such as thinking."""

import weakref
from collections.abc import Sequence
from typing import Any

from odesteer.artifact.positions import Phase
from odesteer.errors import ModelError

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


class BatchTexts:
    """The token ids of each row, by column; `PADDING` where there is none."""

    def __init__(self, rows: Sequence[Sequence[int]], reader: MarkerReader) -> None:
        self.rows = [list(row) for row in rows]
        self._reader = reader
        self._states: dict[tuple[int, Phase], tuple[int, list[bool]]] = {}

    @property
    def n_columns(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    def continue_from(self, column: int, rows: Sequence[Sequence[int]]) -> None:
        """Replace everything from a column on; draft tokens are replaced so."""
        for row, more in zip(self.rows, rows, strict=True):
            row[column:] = more
        for _, states in self._states.values():
            del states[column:]

    def in_phase(self, phase: Phase, ends: Sequence[int], start: int) -> list[list[bool]]:
        """By row and column from ``start`` on, whether the next token is chosen in a phase.

        ``ends`` are where the prompts end: one for all rows, or one for a number of rows each.
        """
        copies = max(len(self.rows) // len(ends), 1)
        found = []
        for i in range(len(self.rows)):
            states = self._known_states(i, phase, ends[i // copies])
            flip = phase.kind == "outside"
            found.append([state != flip for state in states[start:]])
        return found

    def _known_states(self, i: int, phase: Phase, end: int) -> list[bool]:
        """Of each column, whether a block is open, or the marker has come, at its end."""
        key = i, Phase("inside", phase.opening, phase.closing) if phase.opening else phase
        known_end, states = self._states.get(key, (end, []))
        if known_end != end:  # another turn: what was generated before is its prompt
            states = []
        self._states[key] = end, states
        row = self.rows[i]
        first = 0 if phase.opening else end
        seen = [token for token in row[first : len(states)] if token != PADDING]
        for column in range(len(states), len(row)):
            state = states[-1] if states else False
            if column >= first and row[column] != PADDING:
                seen.append(row[column])
                if self._reader.ends_with_last(seen, phase.closing):
                    state = not phase.opening
                elif phase.opening and self._reader.ends_with_last(seen, phase.opening):
                    state = True
            states.append(state)
        return states


class KnownTexts:
    """The texts that caches hold, as far as their passes were seen."""

    def __init__(self, reader: MarkerReader) -> None:
        self._reader = reader
        self._by_cache: weakref.WeakKeyDictionary[Any, BatchTexts] = weakref.WeakKeyDictionary()
        self._last: BatchTexts | None = None

    def give(self, texts: BatchTexts) -> None:
        """The texts that the cache of the next pass holds; passes are added to them."""
        self._last = texts

    def read(self, cache: Any, past: int, rows: Sequence[Sequence[int]]) -> BatchTexts:
        """The texts up to the end of a pass over ``rows``, behind ``past`` columns.

        Raises `ModelError` where these columns were not seen.
        """
        texts = None
        if past:
            try:
                texts = self._by_cache.get(cache, self._last)
            except TypeError:  # a list of states
                texts = self._last
            known = texts is not None and texts.n_columns >= past and len(texts.rows) == len(rows)
            if texts is None or not known:
                raise ModelError(
                    "positions such as 'thinking' and 'after:MARKER' depend on the text, and the"
                    f" {past} tokens in the cache were read before the steering began; begin it"
                    " before the prompt."
                )
            texts.continue_from(past, rows)
        else:
            texts = BatchTexts(rows, self._reader)
        self._last = texts
        try:
            if cache is not None:
                self._by_cache[cache] = texts
        except TypeError:
            pass
        return texts
