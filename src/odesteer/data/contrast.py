"""ContrastData: positive and negative examples with groups, splits, folds and a digest."""

import hashlib
import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from odesteer.errors import DataError, InvalidInputError
from odesteer.untrusted import has_lone_surrogate, is_integer


@dataclass(frozen=True)
class Message:
    """One turn of a chat. ``role`` is what the chat template calls it (``"user"``…)."""

    role: str
    content: str

    def __post_init__(self) -> None:
        _check_text("the role of a message", self.role)
        _check_text("the content of a message", self.content, may_be_blank=True)


@dataclass(frozen=True)
class Example:
    """A response, and what came before it.

    ``prompt`` is a string, or the messages of a chat; plain text has the prompt ``""`` and is
    all response. Raises `DataError` for blank responses and for anything that is not text.
    """

    prompt: str | tuple[Message, ...]
    response: str

    def __post_init__(self) -> None:
        if isinstance(self.prompt, tuple):
            if not self.prompt:
                raise DataError('a chat prompt needs a message; plain text has the prompt "".')
            for message in self.prompt:
                if not isinstance(message, Message):
                    raise DataError(f"a chat prompt holds Message objects, not {message!r:.80}.")
        else:
            _check_text("a prompt", self.prompt, may_be_blank=True)
        _check_text("a response", self.response)

    @property
    def is_chat(self) -> bool:
        """Whether the prompt is a chat, to be rendered by a chat template."""
        return isinstance(self.prompt, tuple)


@dataclass(frozen=True, repr=False)
class ContrastData:
    """Positive and negative examples, each with the label of its group.

    Examples that share a group (the two sides of a pair, the answers to one question) are never
    separated by `split` or `folds`. Raises `DataError` if a side is empty or if groups and
    examples differ in number.
    """

    positive: tuple[Example, ...]
    negative: tuple[Example, ...]
    groups_positive: tuple[str, ...]
    groups_negative: tuple[str, ...]

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            examples, groups = getattr(self, side), getattr(self, f"groups_{side}")
            if not isinstance(examples, tuple) or not isinstance(groups, tuple):
                raise DataError(f"the {side} examples and their groups must be tuples.")
            if not examples:
                raise DataError(f"there is no {side} example; both sides need at least one.")
            if len(examples) != len(groups):
                raise DataError(
                    f"{len(examples)} {side} examples have {len(groups)} groups; give one for each."
                )
            for example in examples:
                if not isinstance(example, Example):
                    raise DataError(f"{side} examples must be Example, not {example!r:.80}.")
            for group in groups:
                _check_text("a group", group)

    @classmethod
    def from_texts(cls, positive: Iterable[str], negative: Iterable[str]) -> "ContrastData":
        """Plain texts that belong to no pairs: each text is its own group."""
        sides = [tuple(Example("", text) for text in texts) for texts in (positive, negative)]
        groups = [tuple(example.response for example in side) for side in sides]
        return cls(sides[0], sides[1], groups[0], groups[1])

    @property
    def groups(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Group labels of the positive and of the negative examples, as `fit` takes them."""
        return self.groups_positive, self.groups_negative

    def __len__(self) -> int:
        """Number of examples, both sides together."""
        return len(self.positive) + len(self.negative)

    def __repr__(self) -> str:
        n_groups = len(set(self.groups_positive) | set(self.groups_negative))
        return (
            f"ContrastData({len(self.positive)} positive, {len(self.negative)} negative,"
            f" {n_groups} groups)"
        )

    def split(
        self, held_out: float = 0.2, *, seed: int = 0
    ) -> tuple["ContrastData", "ContrastData"]:
        """Training and held-out data; ``held_out`` is the share of groups in the latter.

        Which groups are held out depends on their labels and the seed, not on the order of rows.
        Raises `InvalidInputError` if the share is not between 0 and 1, and `DataError` if a side
        of either part would be empty.
        """
        if not 0 < held_out < 1:
            raise InvalidInputError(f"held_out must be between 0 and 1, not {held_out!r}.")
        chosen: set[str] = set()
        for stratum in self._strata(seed):
            # At least one group of each kind on either side where there are two of them.
            n = min(max(round(held_out * len(stratum)), 1), len(stratum) - 1)
            chosen.update(stratum[:n])
        others = {*self.groups_positive, *self.groups_negative} - chosen
        return self._subset(others), self._subset(chosen)

    def folds(
        self, n_folds: int = 5, *, seed: int = 0
    ) -> tuple[tuple["ContrastData", "ContrastData"], ...]:
        """``n_folds`` pairs of training and held-out data; each group is held out once.

        Raises `InvalidInputError` for fewer than two folds, and `DataError` if there are too few
        groups to have both sides in every part.
        """
        if not is_integer(n_folds, 2):
            raise InvalidInputError(f"n_folds must be an integer of at least 2, not {n_folds!r}.")
        fold = {g: i % n_folds for stratum in self._strata(seed) for i, g in enumerate(stratum)}
        return tuple(
            (
                self._subset({g for g in fold if fold[g] != k}),
                self._subset({g for g in fold if fold[g] == k}),
            )
            for k in range(n_folds)
        )

    def digest(self) -> str:
        """sha256 (hexadecimal) of the examples and groups in order.

        It depends on what was read, not on the format or name of the file it was read from.
        """
        sha = hashlib.sha256(b"odesteer contrast data 1\n")
        for side, groups in zip((self.positive, self.negative), self.groups, strict=True):
            for example, group in zip(side, groups, strict=True):
                row = json.dumps([_plain(example.prompt), example.response, group])
                sha.update(row.encode() + b"\n")
            sha.update(b"\n")
        return sha.hexdigest()

    def _strata(self, seed: int) -> tuple[list[str], ...]:
        """Groups with both sides, only positives, only negatives, each in a seeded order."""
        positive, negative = set(self.groups_positive), set(self.groups_negative)

        def order(group: str) -> bytes:
            return hashlib.sha256(f"{seed}:{group}".encode()).digest()

        kinds = (positive & negative, positive - negative, negative - positive)
        return tuple(sorted(kind, key=order) for kind in kinds if kind)

    def _subset(self, chosen: Set[str]) -> "ContrastData":
        sides, labels = [], []
        for name, side, groups in zip(
            ("positive", "negative"), (self.positive, self.negative), self.groups, strict=True
        ):
            kept = [i for i, group in enumerate(groups) if group in chosen]
            if not kept:
                raise DataError(
                    f"{self!r} cannot be split so: a part would have no {name} example."
                    " Use more groups, or a larger part."
                )
            sides.append(tuple(side[i] for i in kept))
            labels.append(tuple(groups[i] for i in kept))
        return ContrastData(sides[0], sides[1], labels[0], labels[1])


def _plain(prompt: str | Sequence[Message]) -> str | list[list[str]]:
    if isinstance(prompt, str):
        return prompt
    return [[message.role, message.content] for message in prompt]


def _check_text(what: str, text: object, *, may_be_blank: bool = False) -> None:
    if not isinstance(text, str):
        raise DataError(f"{what} must be a string, not {text!r:.80}.")
    if not may_be_blank and not text.strip():
        raise DataError(f"{what} must not be blank, not {text!r:.80}.")
    if has_lone_surrogate(text):
        raise DataError(f"{what} holds half of a surrogate pair: {text!r:.80}.")
