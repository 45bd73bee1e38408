"""Base class of suites: tasks that are run together, and the sizes of their data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.evaluation.task import Decoding, Task

PAPER_DECODING = Decoding(options={"repetition_penalty": 1.1})
"""Of all tasks of arXiv 2602.17560: temperature 0.7, top-p 0.9, repetition penalty 1.1."""

DECODING_DIFFERENCES = (
    "tokens are drawn from the whole nucleus; the published scripts leave top-k at the default of"
    " transformers, 50",
    "perplexity of a completion given its prompt under the steered model itself, unsteered; the"
    " paper's, of the output alone under GPT-2 XL, is --perplexity-model openai-community/gpt2-xl"
    " --judge-option perplexity.alone=True",
    "Dist-n of the words of each completion by itself; the paper counts under GPT-2 XL",
)
"""How completions and their fluency differ from the published ones in every task."""


@dataclass(frozen=True)
class Sizes:
    """How much of the data to use; None for all of it, or as the protocol prescribes.

    Attributes:
        fit: examples (or pairs, or questions) to fit on.
        validation: prompts to choose settings on, for each seed.
        test: prompts to report on, for each seed.

    Raises `InvalidInputError` for numbers below 1.
    """

    fit: int | None = None
    validation: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        for name in ("fit", "validation", "test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"the {name} size must be at least 1, not {value}.")


class Suite(ABC):
    """Tasks that are run together.

    Attributes:
        name: of the suite.
        title: a line for people.
        full, quick: sizes of a full run and of ``--quick``.
        chat: whether prompts are chats rather than plain text.
        data: a file or folder with the data in its published format; None to load it from the hub.
        data_options: how a user's own file is read, see `read_contrast`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    full: ClassVar[Sizes] = Sizes()
    quick: ClassVar[Sizes] = Sizes()
    needs_data: ClassVar[str] = ""
    """What ``data`` must be if it is required; "" if it is optional."""

    def __init__(
        self, sizes: Sizes | None = None, data: Path | None = None, *, chat: bool = False
    ) -> None:
        self.sizes = self.full if sizes is None else sizes
        self.data = data
        self.chat = chat
        self.data_options: Mapping[str, Any] = {}
        if data is None and self.needs_data:
            raise InvalidInputError(f"the suite {self.name!r} needs {self.needs_data}.")

    @abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, data read. Raises `DataError` where it is missing, with the remedy."""
