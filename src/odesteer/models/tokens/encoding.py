"""Encoding texts and chats to token ids, with exactly one BOS and the span of the response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.data import Example
from odesteer.errors import InvalidInputError
from odesteer.models.tokens.chat_template import Chat, ChatTemplate

Prompt = str | Chat
"""A text, or a chat: messages or ``{"role": ..., "content": ...}``."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and, behind it, a response.

    Attributes:
        ids: all token ids.
        n_prompt: how many of them are the prompt; a token that holds characters of both belongs
            to the response.
    """

    ids: tuple[int, ...]
    n_prompt: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def response(self) -> range:
        """Indices of the response's tokens."""
        return range(self.n_prompt, len(self.ids))


class Encoder:
    """Encodes prompts and examples with a tokenizer.

    The special tokens that the tokenizer puts in front of a text by itself are there exactly once,
    also where a chat template or the text has them already; none are put behind.
    ``template_arguments`` go to the chat template (``enable_thinking``…), which also renders the
    response to a chat.
    """

    def __init__(
        self,
        tokenizer: Any,
        context: int | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.template = ChatTemplate(tokenizer, template_arguments)
        self._special_prefix = _special_prefix(tokenizer)

    def prompt(self, prompt: Prompt, what: str = "the prompt") -> Encoded:
        """Encode a prompt for generation. Raises `InvalidInputError` if it does not fit."""
        ids = self._with_special_prefix(self._tokens(self._text(prompt, what)))
        if not ids:
            raise InvalidInputError(
                f"{what} has no tokens: it is empty and this tokenizer adds no BOS."
            )
        self._check_length(ids, what)
        return Encoded(tuple(ids), len(ids))

    def example(self, example: Example, what: str = "the example") -> Encoded:
        """Encode a prompt with its response. Raises `InvalidInputError` if it does not fit."""
        if not isinstance(example, Example):
            raise InvalidInputError(f"{what} is {example!r:.80}; plain text is Example('', text).")
        if isinstance(example.prompt, str):
            text, start = example.prompt + example.response, len(example.prompt)
        else:
            text, start = self.template.answered(example.prompt, example.response, what)
        ids, n_prompt = self._split_tokens(text, start)
        whole = self._with_special_prefix(ids)
        n_prompt += len(whole) - len(ids)
        if n_prompt >= len(whole):
            raise InvalidInputError(f"the response of {what} has no tokens: {text!r:.80}.")
        self._check_length(whole, what)
        return Encoded(tuple(whole), max(n_prompt, 0))

    def _text(self, prompt: Prompt, what: str) -> str:
        return prompt if isinstance(prompt, str) else self.template.prompt(prompt, what)

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return list(ids)

    def _split_tokens(self, text: str, start: int) -> tuple[list[int], int]:
        """Tokens of a text, and how many of them end before the response, which begins at the
        character ``start``."""
        if getattr(self.tokenizer, "is_fast", False):
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ends = [end for _, end in encoded["offset_mapping"]]
            n = next((i for i, end in enumerate(ends) if end > start), len(ends))
            return list(encoded["input_ids"]), n
        # Without offsets: the tokens that the opening has in common with the whole.
        ids, alone = self._tokens(text), self._tokens(text[:start])
        pairs = zip(ids, alone, strict=False)
        return ids, next((i for i, (a, b) in enumerate(pairs) if a != b), len(alone))

    def _with_special_prefix(self, ids: list[int]) -> list[int]:
        opening = self._special_prefix
        bos = getattr(self.tokenizer, "bos_token_id", None)
        if opening:
            while ids[: len(opening)] == opening:
                ids = ids[len(opening) :]
            return opening + ids
        while bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        return ids

    def _check_length(self, ids: Sequence[int], what: str) -> None:
        if self.context is not None and len(ids) > self.context:
            raise InvalidInputError(
                f"{what} has {len(ids)} tokens and the model's context {self.context}; shorten it"
                f" by {len(ids) - self.context} tokens. Nothing is truncated silently."
            )


def is_one_prompt(prompts: object) -> bool:
    """Whether it is a text or a chat rather than a list of them."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and any(
        not isinstance(item, (str, Sequence)) for item in prompts
    )


def _special_prefix(tokenizer: Any) -> list[int]:
    """Special tokens that the tokenizer puts in front of every text."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next((i for i in starts if whole[i : i + len(plain)] == plain), 0)]
