"""Held-out prompts with responses of both sides, and prompts to generate from."""

from collections.abc import Sequence
from dataclasses import dataclass

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError

Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class PromptResponses:
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
        """Positive and negative examples with this prompt."""
        sides = (self.positive, self.negative)
        positive, negative = (tuple(Example(self.prompt, r) for r in side) for side in sides)
        return positive, negative


def prompt_responses(data: ContrastData) -> tuple[PromptResponses, ...]:
    """Each prompt of each group with its responses.

    A prompt that has responses of one side only (a pair with a prompt of its own on either side)
    also gets one of the other side of its group, so that the difference is between responses and
    not between prompts. Raises `DataError` where the responses of the sides are the same.
    """
    groups: dict[str, tuple[list[Example], list[Example]]] = {}
    sides = zip((data.positive, data.negative), data.groups, strict=True)
    for k, (side, labels) in enumerate(sides):
        for example, label in zip(side, labels, strict=True):
            groups.setdefault(label, ([], []))[k].append(example)
    found = [each for group, sides_ in groups.items() for each in _of_group(group, sides_)]
    if not any(each.positive for each in found) or not any(each.negative for each in found):
        raise DataError(
            "the positive and the negative responses are the same and only their prompts differ,"
            " so the data cannot tell whether a text shows the behaviour; select with an objective"
            " of your own (odesteer.tuning.WrittenTexts with a judge)."
        )
    return tuple(found)


def _of_group(group: str, sides: tuple[list[Example], list[Example]]) -> list[PromptResponses]:
    """The prompts of one group; responses that stand on both sides of a prompt are left out."""
    responses: dict[Prompt, tuple[list[str], list[str]]] = {}
    for k, side in enumerate(sides):
        for example in side:
            responses.setdefault(example.prompt, ([], []))[k].append(example.response)
    for k, side in enumerate(sides):
        other = sides[1 - k]
        for i, example in enumerate(side):
            missing = responses[example.prompt][1 - k]
            if not missing and other:
                missing.append(other[i % len(other)].response)
    found = []
    for prompt, (positive, negative) in responses.items():
        both = {*positive} & {*negative}
        kept = [tuple(r for r in dict.fromkeys(s) if r not in both) for s in (positive, negative)]
        if kept[0] or kept[1]:
            found.append(PromptResponses(prompt, kept[0], kept[1], group))
    return found


def generation_prompts(held_out: Sequence[PromptResponses]) -> tuple[Prompt, ...]:
    """A prompt to generate from for each of ``held_out``, without duplicates.

    For plain texts it is the first third of the text, at least two words.
    """
    prompts: list[Prompt] = []
    for each in held_out:
        if each.prompt != "":
            prompts.append(each.prompt)
            continue
        for text in each.positive + each.negative:
            words = text.split()
            prompts.append(" ".join(words[: max(2, len(words) // 3)]))
    return tuple(dict.fromkeys(prompts))


def evenly_spaced(held_out: Sequence[PromptResponses], n: int) -> tuple[PromptResponses, ...]:
    """At most ``n`` of them, evenly spaced over the whole."""
    if len(held_out) <= n:
        return tuple(held_out)
    return tuple(held_out[i * len(held_out) // n] for i in range(n))
