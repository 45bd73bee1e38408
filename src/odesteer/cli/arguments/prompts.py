"""Prompts from the command line and from stdin."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from odesteer.cli.errors import UsageError
from odesteer.cli.model.opening import looks_like_model

FROM_STDIN = "-"

_ESCAPE = re.compile(r"\\([nt\\])")
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}


def model_and_prompts(arguments: Sequence[str], model: str | None) -> tuple[str | None, list[str]]:
    """Split positional arguments into the model and the prompts.

    Without ``model``, the first of them is the model if `looks_like_model` says so. Raises
    `UsageError` if no prompt is left.
    """
    if model is not None or not arguments or not looks_like_model(arguments[0]):
        first, rest = model, list(arguments)
    else:
        first, *rest = arguments
    if not rest:
        taken = f": {arguments[0]!r} is taken for the MODEL" if arguments else ""
        raise UsageError(f"there is no PROMPT{taken}; write one, or - to read them from stdin.")
    return first, rest


def read_prompts(arguments: Sequence[str], *, raw: bool) -> list[str]:
    """The prompts, those from stdin in the place of ``-``: one a line, blank lines left out.

    Unless ``raw``, backslash-n stands for a line end, backslash-t for a tab and two backslashes
    for one. Raises `UsageError` for text that is not UTF-8.
    """
    prompts: list[str] = []
    for argument in arguments:
        prompts += _lines_of_stdin() if argument == FROM_STDIN else [argument]
    if not prompts:
        raise UsageError("there was no prompt on stdin; write one a line.")
    for number, prompt in enumerate(prompts, start=1):
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise UsageError(f"prompt {number} is not UTF-8: {prompt!r:.80}.") from None
    return prompts if raw else [unescaped(prompt) for prompt in prompts]


def unescaped(text: str) -> str:
    r"""``\n``, ``\t`` and ``\\`` replaced; other backslashes are kept."""
    return _ESCAPE.sub(lambda found: _ESCAPED[found[1]], text)


def _lines_of_stdin() -> list[str]:
    try:
        return [line for line in sys.stdin.read().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8 ({error}); save the prompts in UTF-8.") from None


def read_texts(path: Path, option: str) -> list[str]:
    """The texts in a file: one a line (.txt), or JSON strings. Raises `UsageError`."""
    from odesteer.data.readers import read_json, read_json_lines, read_text_lines
    from odesteer.errors import DataError

    try:
        if path.suffix == ".jsonl":
            rows = list(read_json_lines(path, texts=True))
        elif path.suffix == ".json":
            rows = list(read_json(path, texts=True))
        else:
            rows = list(read_text_lines(path))
    except (OSError, DataError) as error:
        raise UsageError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None
    texts = [row.fields.get("text", row.fields.get("prompt")) for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"{option} {path}, {row.place}: there is no text; write one a line.")
    if not texts:
        raise UsageError(f"{option} {path} has no text; write one a line.")
    return [str(text) for text in texts]
