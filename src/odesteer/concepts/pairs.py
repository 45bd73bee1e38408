"""Contrastive pairs for a concept: instructions, judgement, duplicates."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import InvalidInputError, ModelError

MAX_WORDS = 200


@dataclass(frozen=True)
class Concept:
    """A quality and its opposite, as adjectives or short phrases: "polite", "rude".

    Raises `InvalidInputError` for blank or equal ones, and for texts of many words.
    """

    positive: str
    negative: str

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            word = getattr(self, name)
            if not isinstance(word, str) or not word.strip() or len(word) > MAX_WORDS:
                raise InvalidInputError(
                    f"a concept is named by a word or a short phrase, not {word!r:.80}."
                )
            object.__setattr__(self, name, " ".join(word.split()))
        if self.positive.lower() == self.negative.lower():
            raise InvalidInputError(f"both sides of the concept are {self.positive!r}.")

    @classmethod
    def parse(cls, text: str) -> "Concept":
        """Read ``polite:rude``. Raises `InvalidInputError` for other text."""
        positive, colon, negative = text.partition(":")
        if not colon or ":" in negative:
            raise InvalidInputError(
                f"{text!r:.80} names no concept; write both sides, as in polite:rude."
            )
        return cls(positive, negative)

    def instruction(self, side: str) -> str:
        """What a writer is told for one side."""
        other = self.negative if side == self.positive else self.positive
        return (
            f"You are {side}. Answer in one or two sentences, in a way that is clearly {side} and"
            f" not {other}. Do not mention that you are."
        )


@dataclass(frozen=True)
class ConceptPairs:
    """Pairs that were kept, and why others were not.

    Attributes:
        concept: what they contrast.
        rows: prompt, positive and negative answer of each.
        margins: how clearly each pair differs, by the writer's judge, the clearest first: nats a
            token for a model, 1 for an endpoint's judgement.
        dropped: how many were dropped, by reason.
    """

    concept: Concept
    rows: tuple[tuple[str, str, str], ...]
    margins: tuple[float, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def n_asked(self) -> int:
        """Number of prompts that were answered on both sides, or should have been."""
        return len(self.rows) + sum(self.dropped.values())

    def to_jsonl(self, *, chats: bool = True) -> str:
        """A line for each pair: prompt, chosen (positive), rejected (negative).

        With ``chats`` prompts are messages of a user, as instruction-tuned models take them; else
        ``Q: …`` and ``A:``.
        """
        lines = []
        for prompt, good, bad in self.rows:
            asked: object = [{"role": "user", "content": prompt}]
            if not chats:
                asked, good, bad = f"Q: {prompt}\nA:", f" {good}", f" {bad}"
            row = {"prompt": asked, "chosen": good, "rejected": bad}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        return "".join(lines)

    def contrast(self, *, chats: bool = True) -> ContrastData:
        """The answers behind their prompts as contrastive data, each pair a group.

        ``chats`` as in `to_jsonl`.
        """
        examples: list[tuple[Example, Example]] = []
        for prompt, good, bad in self.rows:
            if chats:
                asked = (Message("user", prompt),)
                examples.append((Example(asked, good), Example(asked, bad)))
            else:
                text = f"Q: {prompt}\nA:"
                examples.append((Example(text, f" {good}"), Example(text, f" {bad}")))
        groups = tuple(str(i) for i in range(len(self.rows)))
        positive, negative = zip(*examples, strict=True)
        return ContrastData(tuple(positive), tuple(negative), groups, groups)


class PairWriter(ABC):
    """Writes the two answers to a prompt, and judges them."""

    @abstractmethod
    def answers(self, concept: Concept, side: str, prompts: Sequence[str]) -> list[str | None]:
        """An answer to each prompt in the manner of a side; None where there is none."""

    @abstractmethod
    def margins(self, concept: Concept, rows: Sequence[tuple[str, str, str]]) -> list[float | None]:
        """How clearly each pair differs in the right direction; above 0 is right, None unknown."""


def write_pairs(concept: Concept, writer: PairWriter, prompts: Sequence[str]) -> ConceptPairs:
    """Pairs for a concept over ``prompts``: answered on both sides, judged, without duplicates.

    Dropped are pairs without two answers, with equal ones, with an answer that was given before,
    and those that the judge finds to differ in the wrong direction or not at all. Raises
    `ModelError` if none is left.
    """
    if not prompts:
        raise InvalidInputError("there are no prompts to answer.")
    sides = [
        [_cleaned(answer) for answer in writer.answers(concept, side, prompts)]
        for side in (concept.positive, concept.negative)
    ]
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    rows: list[tuple[str, str, str]] = []
    for prompt, good, bad in zip(prompts, *sides, strict=True):
        if not good or not bad:
            dropped["without an answer"] += 1
        elif _normal(good) == _normal(bad):
            dropped["both sides equal"] += 1
        elif _normal(good) in seen or _normal(bad) in seen:
            dropped["repeated"] += 1
        else:
            rows.append((prompt, good, bad))
            seen |= {_normal(good), _normal(bad)}
    judged = list(zip(rows, writer.margins(concept, rows), strict=True)) if rows else []
    kept = sorted(
        ((margin, row) for row, margin in judged if margin is not None and margin > 0),
        key=lambda pair: -pair[0],
    )
    dropped["not told apart"] += len(judged) - len(kept)
    if not kept:
        raise ModelError(
            f"of {len(prompts)} prompts none gave a pair of {concept.positive} and"
            f" {concept.negative} answers ({_reasons(dropped)}); use a larger or an"
            " instruction-tuned model, an endpoint, or other words."
        )
    return ConceptPairs(
        concept,
        tuple(row for _, row in kept),
        tuple(margin for margin, _ in kept),
        {reason: n for reason, n in dropped.items() if n},
    )


def _reasons(dropped: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n)


def _cleaned(answer: str | None) -> str:
    """One paragraph, without surrounding space."""
    return "" if answer is None else answer.strip().split("\n\n")[0].strip()


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
