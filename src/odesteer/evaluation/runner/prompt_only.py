"""The prompt-only baseline: an instruction and examples in the prompt instead of steering."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from odesteer.data import Example, Message
from odesteer.evaluation.item import Item
from odesteer.evaluation.task import Fold, Task


def has_instruction(task: Task) -> bool:
    """Whether the task has an instruction or examples for the prompt-only baseline."""
    return bool(task.instruction or task.shots)


def with_instruction(
    task: Task, fold: Fold, item: Item, seed: int, fits: Callable[[Item], bool] = lambda item: True
) -> Item:
    """The item with the task's instruction and positive examples before its prompt.

    The examples are drawn from the data that the fold is fitted on, for each item anew, as many as
    ``fits`` allows. Only the prompt changes: judges get the original item.
    """
    rng = random.Random(f"prompt-only/{task.name}/{fold.name}/{item.key}/{seed}")
    positive = fold.fit.positive
    examples = rng.sample(positive, min(task.shots, len(positive)))
    while True:
        found = _prepended(task.instruction, examples, item)
        if not examples or fits(found):
            return found
        examples = examples[:-1]


def _prepended(instruction: str, examples: Sequence[Example], item: Item) -> Item:
    if isinstance(item.prompt, tuple):
        return replace(item, prompt=_chat(instruction, examples, item.prompt))
    parts = [instruction] if instruction else []
    parts += [f"{_text(example)}{example.response}".strip() for example in examples]
    return replace(item, prompt="\n".join([*parts, item.prompt]))


def _chat(
    instruction: str, examples: Sequence[Example], prompt: tuple[Message, ...]
) -> tuple[Message, ...]:
    turns = list(prompt)
    system = []
    if turns and turns[0].role == "system":
        system = [turns.pop(0)]
    if instruction:
        texts = [message.content for message in system]
        system = [Message("system", "\n".join([*texts, instruction]))]
    shots = []
    for example in examples:
        turns_of_example = example.prompt if isinstance(example.prompt, tuple) else ()
        shots += [message for message in turns_of_example if message.role != "system"]
        shots.append(Message("assistant", example.response))
    return (*system, *shots, *turns)


def _text(example: Example) -> str:
    if isinstance(example.prompt, str):
        return example.prompt
    return "\n".join(message.content for message in example.prompt) + "\n"
