"""Rubric files: the criteria of the judge ``rubric``, read from JSON."""

import re
from dataclasses import dataclass
from pathlib import Path

from odesteer.errors import DataError
from odesteer.untrusted import is_integer, is_number, parse_json

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class Criterion:
    """One question about a response.

    Attributes:
        name: lower case words, joined by hyphens.
        question: asked about the response; more points mean that it applies more.
        weight: in the mean over criteria, relative to the others.
        points: the highest score; 1 for no (0) or yes (1).
    """

    name: str
    question: str
    weight: float = 1.0
    points: int = 1


def read_criteria(path: Path) -> tuple[Criterion, ...]:
    """Read ``{"criteria": [{"name": …, "question": …, "weight": 1, "points": 1}, …]}``.

    Raises `DataError` that says what is wrong with the file.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the rubric {path}: {error.strerror}.") from error
    read = parse_json(text, f"the rubric {path}", DataError)
    listed = read.get("criteria") if isinstance(read, dict) else None
    if not isinstance(listed, list) or not listed or set(read) != {"criteria"}:
        raise DataError(
            f'the rubric {path} must read {{"criteria": [{{"name": …, "question": …}}, …]}}, with'
            " one criterion at least."
        )
    criteria = tuple(_criterion(f"{path}, criterion {i}", one) for i, one in enumerate(listed, 1))
    names = [criterion.name for criterion in criteria]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the rubric {path} has two criteria called {twice!r}; rename one.")
    return criteria


def _criterion(where: str, fields: object) -> Criterion:
    known = ("name", "question", "weight", "points")
    if not isinstance(fields, dict) or not set(fields) <= set(known):
        raise DataError(f"{where}: {fields!r:.80}; it has {', '.join(known)} and nothing else.")
    name, question = fields.get("name"), fields.get("question")
    weight, points = fields.get("weight", 1.0), fields.get("points", 1)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"{where}: the name is {name!r}; write lower case words with hyphens.")
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: the question is {question!r}; write what to ask.")
    if not is_number(weight) or weight <= 0:
        raise DataError(f"{where}: the weight is {weight!r}; it must be a positive number.")
    if not is_integer(points, 1):
        raise DataError(f"{where}: points is {points!r}; it must be an integer, 1 or more.")
    return Criterion(name, question, float(weight), points)
