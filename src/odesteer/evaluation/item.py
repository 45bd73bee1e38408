"""Item of a benchmark task: a prompt, and the reference for its judges."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from odesteer.data import Message
from odesteer.errors import InvalidInputError


@dataclass(frozen=True)
class Item:
    """A prompt of a benchmark. Raises `InvalidInputError` for values that are not JSON-able.

    Attributes:
        key: unique within its task, the same in every run; part of the keys of results.
        prompt: what the model continues, a text or the messages of a chat.
        group: items that share it are never split between fitting, validation and test (the
            question, the pair, the comment it was taken from).
        reference: for judges, JSON-able. Suites use these names:
            ``question`` the bare question, ``correct`` and ``incorrect`` its published answers
            (lists of texts), ``best`` the best correct one;
            ``choices`` (texts) and ``labels`` (1 true, 0 false) of multiple choice, with
            ``context`` the text that they continue (``mc1``/``mc2``: a mapping of both each);
            ``world`` the name of a terrarium world;
            ``chosen`` and ``rejected`` the answers of a preference pair;
            ``toxicity`` of the prompt, 0 to 1.
    """

    key: str
    prompt: str | tuple[Message, ...]
    group: str
    reference: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("key", "group"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InvalidInputError(
                    f"the {name} of an item must be a text, not {getattr(self, name)!r}."
                )
        try:
            json.dumps(self.reference, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the reference of item {self.key!r} cannot be written as JSON: {error}."
            ) from error

    @property
    def text(self) -> str:
        """The prompt as plain text; of a chat the contents of its messages, a line each."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(message.content for message in self.prompt)
