"""The facts of the truth world, read from ``facts.txt``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from odesteer.errors import InvalidInputError
from odesteer.terrarium.grammar import Template


@dataclass(frozen=True, slots=True)
class Fact:
    """One question with a right and a wrong answer, all as clauses without final mark."""

    questions: tuple[str, ...]
    """The same question in one or more wordings."""
    statement: str
    """The answer as a clause, with ``{a}`` in the place of the answer."""
    true: str
    false: str

    def answer(self, truthful: bool) -> str:
        return self.true if truthful else self.false

    def answer_clause(self, truthful: bool) -> str:
        """The answer as a clause, such as ``the capital of France is Paris``."""
        return self.statement.replace("{a}", self.answer(truthful))


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in the order of the file."""
    text = resources.files(__package__).joinpath("facts.txt").read_text(encoding="utf-8")
    return parse_facts(text)


def parse_facts(text: str) -> tuple[Fact, ...]:
    """Read the two kinds of line that the head of ``facts.txt`` explains."""
    found: list[Fact] = []
    question = statement = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("? "):
            question = line[2:]
        elif line.startswith("= "):
            statement = line[2:]
        elif line.count(" | ") == 3:
            found.append(_fact(*line.split(" | ")))
        elif line.count(": ") == 1 and line.count(" / ") == 1 and question and statement:
            subject, answers = line.split(": ")
            true, false = answers.split(" / ")
            found.append(
                _fact(
                    question.replace("{x}", subject), statement.replace("{x}", subject), true, false
                )
            )
        else:
            raise InvalidInputError(
                f"line {number} of the facts is {line!r}; expected "
                "'question | statement | true | false' or 'subject: true / false' in a family"
            )
    return tuple(found)


def _fact(question: str, statement: str, true: str, false: str) -> Fact:
    return Fact(Template(question, {}).wordings(), statement, true, false)
