"""Parse the options of ``odesteer bench``."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odesteer.cli.arguments.options import OnBadRow
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.output.files import check_new_folder
from odesteer.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from odesteer.evaluation.config import BenchmarkConfig
    from odesteer.methods import Method


def request(**options: Any) -> "BenchmarkConfig":
    """The configuration of a benchmark. Raises `UsageError` for invalid options."""
    with checking_usage():
        from odesteer.evaluation.config import BenchmarkConfig

        return BenchmarkConfig(**options)


def data_options(
    suite: str, column: Sequence[str], duplicates: OnBadRow, identical: OnBadRow
) -> dict[str, Any]:
    """How the file of the suite contrast is read. Raises `UsageError` for other suites."""
    if suite != "contrast":
        if column or duplicates != "drop" or identical != "error":
            raise UsageError(
                "--column, --duplicates and --identical are for the suite contrast, which reads a"
                f" file of your own; {suite} reads its published format. Leave them out."
            )
        return {}
    from odesteer.cli.arguments.contrast import option
    from odesteer.cli.arguments.parameters import pairs_of

    columns = pairs_of(column, "--column")
    return {
        "columns": columns,
        "duplicates": duplicates,
        "identical": identical,
        "spelled": option,
    }


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def layers(text: str | None) -> tuple[tuple[int, ...] | None, bool]:
    """The layers of ``--layers``, and whether it is ``all``."""
    if text is None or text.strip() == "all":
        return None, text is not None
    if not comma_separated(text) or not all(each.isdecimal() for each in comma_separated(text)):
        raise UsageError(f"--layers {text!r} is neither 'all' nor numbers such as 8,12,16.")
    return tuple(map(int, comma_separated(text))), False


def seeds(text: str) -> int | tuple[int, ...]:
    """How many seeds (``3``), or which (``42,43``; ``42,`` for one)."""
    words = comma_separated(text)
    if not words or not all(word.isdecimal() for word in words):
        raise UsageError(f"--seeds {text!r} is neither a number nor a list such as 42,43.")
    return tuple(map(int, words)) if "," in text else int(words[0])


def seeds_of_paper(text: str) -> tuple[int, ...]:
    """The seeds of ``--seeds`` with ``--paper``: as many from 42 on, or those that are named."""
    found = seeds(text)
    return tuple(range(42, 42 + found)) if isinstance(found, int) else found


def costs(text: str | None, *, default: tuple[float, ...]) -> tuple[float, ...]:
    """The costs of ``--at-kl``; empty for ``none``."""
    if text is None:
        return default
    if text.strip() == "none":
        return ()
    try:
        found = tuple(float(each) for each in comma_separated(text))
    except ValueError:
        found = ()
    if not found:
        raise UsageError(f"--at-kl {text!r} is neither 'none' nor numbers such as 0.05,0.1,0.3.")
    return found


def one_layer(text: str | None) -> int | None:
    """The layer of ``--layers`` where there is one only; None if it is left out."""
    numbers, every = layers(text)
    if every or (numbers is not None and len(numbers) > 1):
        raise UsageError(f"--layers {text!r}: --paper steers one layer; name one, such as 13.")
    return None if numbers is None else numbers[0]


def lengths(values: Sequence[str]) -> tuple[float, ...]:
    """The values of T in ``--amounts T=X,…``, which the experiments of the paper steer by."""
    found = amounts(values)
    if set(found) != {"T"}:
        raise UsageError(f"--amounts {' '.join(values)}: --paper steers by T, as in T=4,5,6.")
    return found["T"]


def amounts(values: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The amounts of ``--amounts QUANTITY=X,…``, by their quantity."""
    from odesteer.cli.arguments.parameters import pairs_of
    from odesteer.methods import Amount

    found: dict[str, tuple[float, ...]] = {}
    for quantity, text in pairs_of(values, "--amounts").items():
        try:
            numbers = tuple(float(each) for each in comma_separated(text))
        except ValueError:
            numbers = ()
        if not numbers:
            raise UsageError(
                f"--amounts {quantity}={text}: {text!r} are not numbers such as 0.5,1,2."
            )
        with checking_usage():
            found[quantity] = tuple(float(Amount(quantity, number).value) for number in numbers)
    return found


def variants(varied: Sequence[str]) -> "dict[str, dict[str, Method]]":
    """The variants of methods in values like ``odesteer.barrier=linear/polynomial``, by label."""
    from odesteer.cli.arguments.parameters import combinations, pairs_of

    of_method: dict[str, list[str]] = {}
    for path, values in pairs_of(varied, "--vary").items():
        name, dot, parameter = path.partition(".")
        if not dot:
            raise UsageError(f"--vary {path}={values} is not of the form METHOD.NAME=A/B.")
        of_method.setdefault(name, []).append(f"{parameter}={values}")
    with checking_usage():
        return {name: combinations(name, own) for name, own in of_method.items()}


def judge_options(values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of judges in values like ``rubric.url=http://…``. Raises `UsageError` for others."""
    found: dict[str, dict[str, Any]] = {}
    for text in values:
        path, equals, literal = text.partition("=")
        name, dot, option = path.partition(".")
        if not (equals and dot and name and option):
            raise UsageError(f"--judge-option {text!r} is not of the form NAME.OPTION=VALUE.")
        try:
            value = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            value = literal
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
