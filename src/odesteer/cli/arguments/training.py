"""What ``odesteer fit`` takes for training end to end: cost, distillation, prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from odesteer.cli.errors import UsageError, checking_usage

if TYPE_CHECKING:
    from odesteer.methods import Method

END_TO_END = "end-to-end"


def trained_method(
    name: str | None, params: Sequence[str], seed: int, kl: float | None, distil: str | None
) -> "Method":
    """The method that the options name; ``kl`` and ``distil`` are for `EndToEnd` alone.

    Raises `UsageError` for another method beside them.
    """
    from odesteer.cli.arguments.parameters import build_method
    from odesteer.methods import Distillation, EndToEnd

    given = [f"--{o}" for o, value in (("kl", kl), ("distil", distil)) if value is not None]
    if given and name not in (None, END_TO_END):
        raise UsageError(
            f"{given[0]} is for barriers learned through the model; write --method {END_TO_END},"
            f" not --method {name}."
        )
    name = name or (END_TO_END if given else "odesteer")
    with checking_usage():
        method = build_method(name, params, seed)
        if kl is not None:
            method = method.with_params(kl=kl)
        if distil is not None:
            method = method.with_params(objective=Distillation(distil))
        if isinstance(method, EndToEnd):
            method.check()
    return method


def read_prompt_file(path: Path, option: str) -> list[str]:
    """The prompts in a file: a text a line (.txt), or JSON strings. Raises `UsageError`."""
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
    prompts = [row.fields.get("text", row.fields.get("prompt")) for row in rows]
    for row, prompt in zip(rows, prompts, strict=True):
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(f"{option} {path}, {row.place}: there is no text; write one a line.")
    if not prompts:
        raise UsageError(f"{option} {path} has no prompt; write one a line.")
    return [str(prompt) for prompt in prompts]
