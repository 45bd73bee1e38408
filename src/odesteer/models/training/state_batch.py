"""A batch of texts with the states that passes through the upper layers begin from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact.positions import parse_position
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.training.prompt_states import PromptStates


@dataclass
class StateBatch:
    """Texts of one batch with what their passes need.

    The passes run each text from a first token on, to the last but one, which decides about the
    last; these parts are padded on the right.

    Attributes:
        texts: the encoded prompts with their answers.
        starts: the first token of each text that is run again; the last prompt token at the latest.
        position: which tokens are moved, as `Site` says it.
        prompts: keys and values of what is before ``starts``; None where that is nothing.
        states: `[n, columns, width]` by layer: the output of layers below which nothing need be
            run again; empty where every layer is run.
        outputs: how each layer up to the last of these returned its states, see `_rewrapped`.
        activations: `[m, d]`, float32, what is moved at each site, of the unsteered model.
    """

    texts: list[Encoded]
    starts: list[int]
    position: str
    prompts: PromptStates | None = None
    states: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    activations: dict[SiteModule, Tensor] = field(default_factory=dict)

    @property
    def parts(self) -> list[tuple[int, ...]]:
        """The token ids that are run."""
        return [text.ids[start:-1] for text, start in zip(self.texts, self.starts, strict=True)]

    @cached_property
    def moved(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of what is moved."""
        rows, columns = moved_tokens(self.texts, self.position)
        starts = torch.tensor(self.starts)
        where = torch.tensor(rows, dtype=torch.long)
        return where, torch.tensor(columns, dtype=torch.long) - starts[where]

    @cached_property
    def deciding(self) -> tuple[Tensor, Tensor]:
        """Rows and columns at which the tokens of the answers are chosen, text after text."""
        rows: list[int] = []
        columns: list[int] = []
        for row, (text, start) in enumerate(zip(self.texts, self.starts, strict=True)):
            rows += [row] * len(text.response)
            columns += range(text.n_prompt - 1 - start, len(text) - 1 - start)
        return torch.tensor(rows), torch.tensor(columns)

    @cached_property
    def answers(self) -> Tensor:
        """The token ids of all answers `[tokens]`, text after text."""
        return torch.tensor([i for text in self.texts for i in text.ids[text.n_prompt :]])

    @property
    def n_tokens(self) -> Tensor:
        """Tokens of each answer, `[n]`."""
        return torch.tensor([len(text.response) for text in self.texts])

    def by_text(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values at the tokens of all answers `[tokens, ...]`, split into those of each text."""
        parts: tuple[Tensor, ...] = torch.split(values, self.n_tokens.tolist())
        return parts


def moved_tokens(texts: Sequence[Encoded], position: str) -> tuple[list[int], list[int]]:
    """Rows and columns of the tokens of texts that steering at a position moves.

    The last token of a text decides about nothing in it, and is left out.
    """
    where = parse_position(position)
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        first, last = 0, len(text) - 1
        if where.is_behind_prompt:
            behind = text.n_prompt - where.lead
            first = behind + where.start
            last = last if where.stop is None else min(last, behind + where.stop)
        elif where.tokens == "prompt":
            last = text.n_prompt
        rows += [row] * max(last - first, 0)
        columns += range(first, last)
    return rows, columns
