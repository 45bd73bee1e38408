"""Base class of worlds: generators of texts with a hidden attribute, each with an exact judge."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, get_args

from odesteer.data.contrast import ContrastData, Example
from odesteer.errors import InvalidInputError

CapturePosition = Literal["last", "answer", "prompt", "random_answer"]


Split = Literal["fit", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Half to fit on, a fifth to tune on, the rest to report on. Interleaved, so that a family of
# neighbouring facts or synonyms is spread over all three.
_PATTERN: tuple[Split, ...] = (
    "fit", "test", "fit", "validation", "fit", "test", "fit", "validation", "test", "fit",
)  # fmt: skip

T = TypeVar("T")


def items_of_split(items: Iterable[T], split: Split) -> tuple[T, ...]:
    """The items of a split, by their position: always the same."""
    if split not in SPLITS:
        raise InvalidInputError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return tuple(item for i, item in enumerate(items) if _PATTERN[i % len(_PATTERN)] == split)


def checked_share(exceptions: float) -> float:
    """The share of exceptions of a world. Raises `InvalidInputError` unless it is 0 to 0.5."""
    if not 0 <= exceptions <= 0.5:
        raise InvalidInputError(
            f"exceptions is {exceptions}; it must be from 0 to 0.5, beyond which they are the rule"
        )
    return exceptions


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a world's judge on one completion."""

    attribute: bool | None
    """True for the positive side, False for the negative one, None if the text shows neither."""
    valid: bool
    """Whether the world's grammar generates this completion of this prompt."""

    def achieves(self, desired: bool = True) -> bool:
        """The headline criterion: valid, and the attribute is the desired one."""
        return self.valid and self.attribute is desired


INVALID = Verdict(attribute=None, valid=False)


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """A pair of texts that differ in the hidden attribute and as little else as possible."""

    positive: Example
    negative: Example
    group: str


class World(ABC):
    """One hidden attribute, and the texts that show it.

    Texts are the same bytes for the same seed. What is drawn for one split (questions, items,
    names, templates) never occurs in another; the language model itself was trained on all.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """One line: what steering changes."""
    poles: ClassVar[tuple[str, str]]
    """Names of the positive and the negative side."""
    position: ClassVar[CapturePosition]
    """Where in an example to capture activations."""
    layer: ClassVar[int]
    """After which decoder layer, counted from zero."""
    max_new_tokens: ClassVar[int]
    """Enough for every completion of this world."""
    stop: ClassVar[str] = "\n"
    """A completion ends here."""

    @abstractmethod
    def document(self, rng: random.Random, attribute: bool) -> str:
        """A training text by a speaker with this attribute; ends with a newline."""

    @abstractmethod
    def judge(self, prompt: str, completion: str) -> Verdict:
        """Judge what follows ``prompt``, up to the first :attr:`stop`.

        The prompt may be any text of this world that waits for a completion, not only one
        from :meth:`prompts`; another prompt is an :class:`InvalidInputError`.
        """

    @abstractmethod
    def _prompt(self, rng: random.Random, split: Split) -> str:
        """One prompt that leaves the attribute open."""

    @abstractmethod
    def _contrast(self, rng: random.Random, split: Split) -> ContrastPair:
        """One pair to fit a steerer from."""

    def prompts(self, split: Split, seed: int, n: int) -> tuple[str, ...]:
        """``n`` prompts to generate from, each of which leaves the attribute open."""
        rng = self._generator("prompts", split, seed, n)
        return tuple(self._prompt(rng, split) for _ in range(n))

    def contrast(self, split: Split, seed: int, n: int) -> ContrastData:
        """``n`` pairs to fit a steerer from; a group never spans what a fold should separate."""
        rng = self._generator("contrast", split, seed, n)
        pairs = [self._contrast(rng, split) for _ in range(n)]
        groups = tuple(pair.group for pair in pairs)
        return ContrastData(
            positive=tuple(pair.positive for pair in pairs),
            negative=tuple(pair.negative for pair in pairs),
            groups_positive=groups,
            groups_negative=groups,
        )

    def _generator(self, purpose: str, split: Split, seed: int, n: int) -> random.Random:
        if split not in SPLITS:
            raise InvalidInputError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
        if n < 1:
            raise InvalidInputError(f"n is {n}; ask for at least 1")
        # A string seed is hashed with SHA-512, the same on every machine and Python version.
        return random.Random(f"{self.name}/{purpose}/{split}/{seed}")

    def _completion(self, text: str) -> str:
        return text.split(self.stop, 1)[0].strip()
