"""The rows that the requests of the harness are scored in."""

from collections.abc import Sequence
from typing import Any

from odesteer.tuning.likelihood import Row

Request = tuple[Any, Sequence[int], Sequence[int]]
"""As the harness hands it over: a key for its cache (None for a window of a longer text), the
tokens of the context, and those of the continuation."""


def row_of(request: Request, max_length: int) -> Row:
    """The row that a request is scored in; contexts that are too long lose their beginning.

    A text that is scored as a whole (without a key) is taken for generated from its first token
    on, in every one of its windows.
    """
    key, context, continuation = request
    tokens = (*context, *continuation)[-(max_length + 1) :][:-1]
    n_context = len(tokens) - len(continuation) + 1
    return Row(tokens, 1 if key is None else n_context, n_context - 1)


def rows_of(requests: Sequence[Request], max_length: int) -> list[tuple[Row, list[int]]]:
    """Each distinct row with the requests that it answers, the longest first.

    Requests that differ in the last token of the continuation share a row. Those whose contexts
    end at different tokens do not, even where all their tokens are the same: they are steered
    from different tokens on.
    """
    rows: dict[Row, list[int]] = {}
    for i, request in enumerate(requests):
        rows.setdefault(row_of(request, max_length), []).append(i)
    return sorted(rows.items(), key=lambda item: (-item[0].n_prompt, -len(item[0].tokens)))
