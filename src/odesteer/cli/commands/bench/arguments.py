"""What the words of ``odesteer bench`` mean."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.output.files import check_new_folder
from odesteer.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from odesteer.evaluation.config import BenchmarkConfig
    from odesteer.methods import Method


def request(**asked: Any) -> "BenchmarkConfig":
    """Raises `UsageError` for what cannot be asked for."""
    with checking_usage():
        from odesteer.evaluation.config import BenchmarkConfig

        return BenchmarkConfig(**asked)


def words(text: str) -> tuple[str, ...]:
    """Of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def layers(text: str | None) -> tuple[tuple[int, ...] | None, bool]:
    """Numbers, and whether it is all of them."""
    if text is None or text.strip() == "all":
        return None, text is not None
    if not words(text) or not all(word.isdecimal() for word in words(text)):
        raise UsageError(f"--layers {text!r} is neither 'all' nor numbers such as 8,12,16.")
    return tuple(map(int, words(text))), False


def amounts(text: str) -> tuple[float, ...]:
    """Numbers."""
    try:
        found = tuple(float(word) for word in words(text))
    except ValueError:
        found = ()
    if not found:
        raise UsageError(f"--amounts {text!r} are not numbers such as 0.5,1,2.")
    return found


def variants(varied: Sequence[str]) -> "dict[str, dict[str, Method]]":
    """Of words like ``odesteer.barrier=linear/polynomial``: each form under what it says."""
    from odesteer.cli.arguments.parameters import combinations, pairs_of

    of_method: dict[str, list[str]] = {}
    for path, values in pairs_of(varied, "--vary").items():
        name, dot, parameter = path.partition(".")
        if not dot:
            raise UsageError(f"--vary {path}={values} is not of the form METHOD.NAME=A/B.")
        of_method.setdefault(name, []).append(f"{parameter}={values}")
    with checking_usage():
        return {name: combinations(name, own) for name, own in of_method.items()}


def judge_options(said: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of words like ``rubric.url=http://…``. Raises `UsageError` for others."""
    found: dict[str, dict[str, Any]] = {}
    for word in said:
        path, equals, text = word.partition("=")
        name, dot, option = path.partition(".")
        if not (equals and dot and name and option):
            raise UsageError(f"--judge-option {word!r} is not of the form NAME.OPTION=VALUE.")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        found.setdefault(name, {})[option] = value
    with checking_usage():
        from odesteer.evaluation.judges import create

        for name, options in found.items():
            try:
                create(name, **options)
            except UnknownNameError:
                raise
            except (InvalidInputError, TypeError) as error:
                raise InvalidInputError(f"--judge-option for {name!r}: {error}") from error
    return found


def check_folder(folder: Path) -> None:
    """Raise `UsageError` for a folder with anything but an earlier benchmark in it."""
    check_new_folder(folder)
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if inside and not {"generations.jsonl", "scores.jsonl"} & inside:
        raise UsageError(
            f"{folder} has other files in it and no earlier benchmark; choose another --output."
        )
