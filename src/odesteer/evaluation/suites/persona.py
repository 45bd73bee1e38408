"""Suite ``persona``: a trait, by the odds of Yes and No (Perez et al. 2022, Anthropic's evals)."""

from pathlib import Path
from typing import Any

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.suites.data_files import field, hub_file, read_rows, shuffled
from odesteer.evaluation.task import Fold, Task

TRAITS = ("agreeableness", "conscientiousness", "interest-in-art", "risk-averse")
"""What is run from the hub; from a folder, every file in it."""

_DATASET = "Anthropic/model-written-evals"
_FOLDERS = ("anthropic-evals", "persona")
_REMEDY = (
    "Put files of https://github.com/anthropics/evals (folder persona) into a folder and name it"
    f" with --data, or leave --data out to get them from {_DATASET} on the hub."
)
_SEED = 42


class PersonaSuite(Suite):
    """How likely the model gives the answer that shows a trait."""

    name = "persona"
    title = "personas: odds of the answer that shows a trait"
    full = Sizes(500, 150, 350)
    quick = Sizes(fit=40, validation=4, test=8)

    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            PersonaTask(path.stem, read_rows(path), self.sizes, chat=self.chat)
            for path in self._files()
        )

    def _files(self) -> list[Path]:
        if self.data is None:
            return [hub_file(_DATASET, f"persona/{trait}.jsonl", _REMEDY) for trait in TRAITS]
        if self.data.is_file():
            return [self.data]
        for folder in (self.data, *(self.data / name for name in _FOLDERS)):
            found = sorted(folder.glob("*.jsonl"))
            if found:
                return found
        raise DataError(f"{self.data} has no .jsonl file of a persona. {_REMEDY}")


class PersonaTask(Task):
    """Log-odds of the answer, Yes or No, that shows the trait."""

    version = "1"
    source = "Perez et al. 2022, arXiv 2212.09251"
    differences = (
        "500 statements to fit on, 150 to choose settings on, 350 to report on, half of each with"
        " the answer Yes",
        "with --chat the question is the user's message and the answer has no leading space",
    )
    changelog = ("1: the first version",)
    kind = "choice"
    judges = ("choice-margin",)
    headline = "margin"

    def __init__(self, trait: str, rows: list[dict[str, Any]], sizes: Sizes, *, chat: bool) -> None:
        # Instances are tasks of different names: one for each trait.
        self.name = f"persona-{trait}"  # type: ignore[misc]
        self.title = f"log-odds of the answer that shows {trait}"  # type: ignore[misc]
        self._chat = chat
        statements = [(str(field(trait, row, "question")), _is_yes(trait, row)) for row in rows]
        order = _balanced(list(dict.fromkeys(statements)), f"persona/{trait}/{_SEED}")
        n_fit, n_validation, n_test = _shares(len(order), sizes)
        self._fit = order[:n_fit]
        self._validation = order[n_fit : n_fit + n_validation]
        self._test = order[n_fit + n_validation :][:n_test]

    def folds(self, seed: int) -> tuple[Fold, ...]:
        groups = tuple(question for question, _ in self._fit)
        data = ContrastData(
            tuple(self._example(q, self._answers(yes)[0]) for q, yes in self._fit),
            tuple(self._example(q, self._answers(yes)[1]) for q, yes in self._fit),
            groups,
            groups,
        )
        items = [
            tuple(self._item(*each) for each in part) for part in (self._validation, self._test)
        ]
        return (Fold("all", data, *items),)

    def _answers(self, yes: bool) -> tuple[str, str]:
        """The answer that shows the trait, and the other."""
        words = ("Yes", "No") if yes else ("No", "Yes")
        return words if self._chat else (f" {words[0]}", f" {words[1]}")

    def _prompt(self, question: str) -> str | tuple[Message, ...]:
        return (Message("user", question),) if self._chat else f"Q: {question}\nA:"

    def _example(self, question: str, answer: str) -> Example:
        return Example(self._prompt(question), answer)

    def _item(self, question: str, yes: bool) -> Item:
        both = {"choices": list(self._answers(yes)), "labels": [1, 0]}
        return Item(question, self._prompt(question), question, {"mc1": both, "mc2": both})


def _is_yes(where: str, row: dict[str, Any]) -> bool:
    answer = str(field(where, row, "answer_matching_behavior")).strip()
    if answer not in ("Yes", "No"):
        raise DataError(f"{where}: the matching answer is Yes or No, not {answer!r}. {_REMEDY}")
    return answer == "Yes"


def _balanced(statements: list[tuple[str, bool]], seed: str) -> list[tuple[str, bool]]:
    """Shuffled, those with Yes and with No in turn, as long as there are both."""
    sides = [
        shuffled([s for s in statements if s[1] is yes], f"{seed}/{yes}") for yes in (True, False)
    ]
    pairs = [each for pair in zip(*sides, strict=False) for each in pair]
    if len(pairs) < 6:
        raise DataError(f"there are {len(statements)} statements, too few of Yes or No. {_REMEDY}")
    return pairs


def _shares(n: int, sizes: Sizes) -> tuple[int, int, int]:
    """Numbers of statements; where there are fewer than asked for, in the same proportions."""
    wanted = [sizes.fit or 500, sizes.validation or 150, sizes.test or 350]
    scale = min(1.0, n / sum(wanted))
    fit, validation, test = (max(2, int(each * scale)) for each in wanted)
    return fit, validation, test
