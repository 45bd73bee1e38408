"""The prompt-only baseline."""

from pathlib import Path

import pytest

from odesteer import ContrastData, Example, Message
from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.prompt_only import has_instruction, with_instruction
from odesteer.evaluation.suites import Sizes, registry
from odesteer.evaluation.task import Fold, Task


def _task() -> Task:
    return registry.get("terrarium")(Sizes(8, 2, 2)).tasks()[0]


def test_positive_examples_come_first() -> None:
    task = _task()
    (fold,) = task.folds(0)
    item = fold.test[0]
    prompt = with_instruction(task, fold, item, 0).prompt
    assert isinstance(prompt, str)
    shown = prompt.removesuffix(f"\n{item.prompt}")
    assert shown in {f"{e.prompt}{e.response}".strip() for e in fold.fit.positive}
    assert has_instruction(task)


def test_as_many_as_fit() -> None:
    task = _task()
    (fold,) = task.folds(0)
    item = fold.test[0]
    assert with_instruction(task, fold, item, 0, fits=lambda item: False) == item


def test_chats_take_the_instruction_into_the_system_line() -> None:
    task = _task()
    task.instruction, task.shots = "Be good.", 1
    data = ContrastData.from_texts(["fine"], ["bad"])
    chat = (Message("system", "Answer."), Message("user", "Why?"))
    item = Item("k", chat, "g", {})
    fold = Fold("f", data, (Item("v", "v", "v", {}),), (item,))
    assert with_instruction(task, fold, item, 0).prompt == (
        Message("system", "Answer.\nBe good."),
        Message("assistant", "fine"),
        Message("user", "Why?"),
    )


def test_items_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="cannot be written as JSON"):
        Item("k", "p", "g", {"path": Path("x")})
    with pytest.raises(InvalidInputError, match="the key of an item"):
        Item("", "p", "g", {})


def test_folds_are_checked() -> None:
    data = ContrastData((Example("", "a"),), (Example("", "b"),), ("a",), ("b",))
    one, other = Item("1", "p", "g", {}), Item("1", "p", "h", {})
    with pytest.raises(DataError, match="no test item"):
        Fold("f", data, (one,), ())
    with pytest.raises(DataError, match="'1' twice"):
        Fold("f", data, (Item("2", "p", "v", {}),), (one, other))
    with pytest.raises(DataError, match="in validation and in test"):
        Fold("f", data, (one,), (Item("2", "p", "g", {}),))
