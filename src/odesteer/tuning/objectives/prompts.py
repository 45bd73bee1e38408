"""Held-out examples with every response put behind the prompts of its group."""

from collections.abc import Sequence
from dataclasses import dataclass

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError

Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class Question:
    """A prompt of a group with responses of both sides (in unpaired data of one).

    Attributes:
        prompt: "" for plain texts.
        positive, negative: responses.
        group: label of the group that they come from.
    """

    prompt: Prompt
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    group: str

    @property
    def examples(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Positive and negative ones, with this prompt."""
        sides = (self.positive, self.negative)
        positive, negative = (tuple(Example(self.prompt, r) for r in side) for side in sides)
        return positive, negative


def questions(data: ContrastData) -> tuple[Question, ...]:
    """Each prompt of each group with the responses that belong to it.

    A prompt that has responses of one side only (a pair with a prompt of its own on either side)
    also gets one of its group's other side: what is told apart then is the responses, not the
    prompts. Raises `DataError` where the responses of the sides are the same.
    """
    groups: dict[str, tuple[list[Example], list[Example]]] = {}
    sides = zip((data.positive, data.negative), data.groups, strict=True)
    for k, (side, labels) in enumerate(sides):
        for example, label in zip(side, labels, strict=True):
            groups.setdefault(label, ([], []))[k].append(example)
    found = [question for group, members in groups.items() for question in _of(group, members)]
    if not any(q.positive for q in found) or not any(q.negative for q in found):
        raise DataError(
            "the positive and the negative responses are the same and only their prompts differ,"
            " so the data cannot tell whether a text shows the behaviour; select with an objective"
            " of your own (odesteer.tuning.WrittenTexts with a judge)."
        )
    return tuple(found)


def _of(group: str, members: tuple[list[Example], list[Example]]) -> list[Question]:
    responses: dict[Prompt, tuple[list[str], list[str]]] = {}
    for k, side in enumerate(members):
        for example in side:
            responses.setdefault(example.prompt, ([], []))[k].append(example.response)
    for k, side in enumerate(members):
        other = members[1 - k]
        for i, example in enumerate(side):
            missing = responses[example.prompt][1 - k]
            if not missing and other:
                missing.append(other[i % len(other)].response)
    found = []
    for prompt, (positive, negative) in responses.items():
        both = {*positive} & {*negative}
        kept = [tuple(r for r in dict.fromkeys(s) if r not in both) for s in (positive, negative)]
        if kept[0] or kept[1]:
            found.append(Question(prompt, kept[0], kept[1], group))
    return found


def openings(asked: Sequence[Question]) -> tuple[Prompt, ...]:
    """A prompt to generate from for each question, none twice.

    A plain text is opened by its first third, at least two words of it.
    """
    prompts: list[Prompt] = []
    for question in asked:
        if question.prompt != "":
            prompts.append(question.prompt)
            continue
        for text in question.positive + question.negative:
            words = text.split()
            prompts.append(" ".join(words[: max(2, len(words) // 3)]))
    return tuple(dict.fromkeys(prompts))


def spread(asked: Sequence[Question], n: int) -> tuple[Question, ...]:
    """At most ``n`` of them, evenly over the whole."""
    if len(asked) <= n:
        return tuple(asked)
    return tuple(asked[i * len(asked) // n] for i in range(n))
