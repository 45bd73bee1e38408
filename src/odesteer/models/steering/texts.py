"""The texts of a batch, token by token, and which columns lie in a phase such as thinking."""

import weakref
from collections.abc import Sequence
from typing import Any

from odesteer.artifact.phases import MarkerReader, PhasedText
from odesteer.artifact.positions import Phase
from odesteer.errors import ModelError


class BatchTexts:
    """The tokens of each row, by column; `PADDING` where there is none."""

    def __init__(self, rows: Sequence[Sequence[int]], reader: MarkerReader) -> None:
        self.rows = [PhasedText(row, reader) for row in rows]

    @property
    def n_columns(self) -> int:
        return len(self.rows[0].tokens) if self.rows else 0

    def continue_from(self, column: int, rows: Sequence[Sequence[int]]) -> None:
        """Replace everything from a column on; draft tokens are replaced so."""
        for row, more in zip(self.rows, rows, strict=True):
            row.continue_from(column, more)

    def in_phase(self, phase: Phase, ends: Sequence[int], start: int) -> list[list[bool]]:
        """By row and column from ``start`` on, whether the next token is chosen in a phase.

        ``ends`` are where the prompts end: one for all rows, or one for a number of rows each.
        """
        copies = max(len(self.rows) // len(ends), 1)
        return [row.in_phase(phase, ends[i // copies], start) for i, row in enumerate(self.rows)]


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
