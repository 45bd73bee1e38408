"""The prompt-only baseline: asking for the behaviour instead of steering to it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from odesteer.data import Example, Message
from odesteer.evaluation.item import Item
from odesteer.evaluation.task import Fold, Task


def has_baseline(task: Task) -> bool:
    """Whether the task says how to ask."""
    return bool(task.instruction or task.shots)


def asked(
    task: Task, fold: Fold, item: Item, seed: int, fits: Callable[[Item], bool] = lambda item: True
) -> Item:
    """The item with the task's instruction and positive examples before its prompt.

    The examples are drawn from what the fold is fitted on, anew for each item; as many as ``fits``
    allows. Only the prompt changes: judges are shown the item as it was.
    """
    rng = random.Random(f"prompt-only/{task.name}/{fold.name}/{item.key}/{seed}")
    positive = fold.fit.positive
    shown = rng.sample(positive, min(task.shots, len(positive)))
    while True:
        found = _with(task.instruction, shown, item)
        if not shown or fits(found):
            return found
        shown = shown[:-1]


def _with(instruction: str, shown: Sequence[Example], item: Item) -> Item:
    if isinstance(item.prompt, tuple):
        return replace(item, prompt=_chat(instruction, shown, item.prompt))
    parts = [instruction] if instruction else []
    parts += [f"{_text(example)}{example.response}".strip() for example in shown]
    return replace(item, prompt="\n".join([*parts, item.prompt]))


def _chat(
    instruction: str, shown: Sequence[Example], prompt: tuple[Message, ...]
) -> tuple[Message, ...]:
    turns = list(prompt)
    opening = []
    if turns and turns[0].role == "system":
        opening = [turns.pop(0)]
    if instruction:
        said = [message.content for message in opening]
        opening = [Message("system", "\n".join([*said, instruction]))]
    before = []
    for example in shown:
        asking = example.prompt if isinstance(example.prompt, tuple) else ()
        before += [message for message in asking if message.role != "system"]
        before.append(Message("assistant", example.response))
    return (*opening, *before, *turns)


def _text(example: Example) -> str:
    if isinstance(example.prompt, str):
        return example.prompt
    return "\n".join(message.content for message in example.prompt) + "\n"
