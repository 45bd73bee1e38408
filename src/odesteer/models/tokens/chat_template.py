"""Chat templates: chats as texts, with the arguments of the template and the span of an answer."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from odesteer.data import Message
from odesteer.errors import InvalidInputError
from odesteer.untrusted import brief

Chat = Sequence[Message | Mapping[str, Any]]
"""Messages, or ``{"role": ..., "content": ...}``."""

_PLACEHOLDER = "odesteer5d41402aplaceholder"  # an answer that no text contains
_OWN = (
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "messages",
    "tokenize",
)


def checked_template_arguments(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments for chat templates, as plain JSON data with sorted names.

    Raises `InvalidInputError` for what is no mapping of names to JSON values, and for arguments
    that are set here.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidInputError(
            f"chat_template_kwargs must map names to values, not {arguments!r:.80}; write"
            " {'enable_thinking': False}."
        )
    for name in arguments:
        if name in _OWN or name.startswith("return_"):
            raise InvalidInputError(
                f"chat_template_kwargs must not hold {name!r}, which is set here; a template of"
                " your own goes to tokenizer.chat_template."
            )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(sorted(arguments.items()))))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"chat_template_kwargs must hold JSON values, so that steerers can say what they were"
            f" fitted with: {error}."
        ) from error
    return plain


class ChatTemplate:
    """The chat template of a tokenizer with fixed arguments.

    Raises `InvalidInputError` for arguments that the template never mentions.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.arguments = checked_template_arguments(arguments)
        if self.exists:
            self._check_arguments()

    @property
    def exists(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def prompt(self, chat: Chat, what: str) -> str:
        """The text of a chat that is to be answered, or continued if it ends with the assistant."""
        messages = self._messages(chat, what)
        if messages[-1]["role"] != "assistant":
            return self._rendered(messages, what, add_generation_prompt=True)
        return self._continued(messages, what)

    def answered(self, chat: Chat, response: str, what: str) -> tuple[str, int]:
        """The text of a chat up to the end of the assistant's answer, and where the answer begins.

        The answer is rendered as a turn of the assistant, whatever the template writes before it
        (such as an empty thinking block) or strips from it. Where the chat ends with words of the
        assistant, the answer continues them.
        """
        messages, begun = self._messages(chat, what), ""
        if messages[-1]["role"] == "assistant":
            begun = messages.pop()["content"]
        marked = self._rendered(
            [*messages, {"role": "assistant", "content": begun + _PLACEHOLDER}], what
        )
        whole = self._rendered(
            [*messages, {"role": "assistant", "content": begun + response}], what
        )
        before, found, after = marked.rpartition(_PLACEHOLDER)
        if not found:
            raise InvalidInputError(
                f"the chat template leaves out the assistant's answer of {what}; use another"
                " template (tokenizer.chat_template)."
            )
        text = whole[: len(whole) - len(after)] if whole.endswith(after) else whole
        if text.startswith(before):
            return text, len(before)
        # A template that reads thoughts out of the answer writes another turn around it.
        opening = self._rendered(messages, what, add_generation_prompt=True)
        return text, _n_shared(text, opening) + len(begun)

    def _continued(self, messages: list[dict[str, Any]], what: str) -> str:
        begun = messages[-1]["content"]
        text = self._rendered(messages, what, continue_final_message=True)
        if begun != begun.rstrip() and not text.endswith(begun):
            raise InvalidInputError(
                f"the words that {what} puts into the assistant's mouth, {brief(begun)}, end with"
                " white space, which the chat template drops; leave it out there, and begin what"
                " follows with it."
            )
        return text

    def _rendered(self, messages: list[dict[str, Any]], what: str, **options: Any) -> str:
        if not self.exists:
            raise InvalidInputError(
                f"{what} is a chat, and this tokenizer has no chat template; use a text, an"
                " instruction-tuned model, or set tokenizer.chat_template."
            )
        self._check_arguments()
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, **options, **self.arguments
            )
        except ImportError:  # of jinja2
            raise
        except Exception as error:  # templates raise errors of their own, and of many types
            reason = " ".join(str(error).split()) or type(error).__name__
            roles = ", ".join(message["role"] for message in messages)
            raise InvalidInputError(
                f"the chat template refuses {what}, with the roles {roles}: {reason:.200}"
                f" {_remedy(reason)}"
            ) from error
        return text

    def _check_arguments(self) -> None:
        template = str(self.tokenizer.chat_template)
        for name in self.arguments:
            if not re.search(rf"\b{re.escape(name)}\b", template):
                raise InvalidInputError(
                    f"the chat template of this tokenizer does not mention {name!r}, so that"
                    f" chat_template_kwargs={self.arguments} would do nothing; check the spelling"
                    " or leave it out."
                )

    @staticmethod
    def _messages(chat: Chat, what: str) -> list[dict[str, Any]]:
        messages = [_message(message, what, i) for i, message in enumerate(chat)]
        if not messages:
            raise InvalidInputError(f"{what} is a chat without messages.")
        return messages


def _n_shared(a: str, b: str) -> int:
    """Number of characters that two texts have in common at the start."""
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _remedy(reason: str) -> str:
    lowered = reason.lower()
    if "system" in lowered:
        return "— write what the system message says at the head of the first user message."
    if "alternat" in lowered or "role" in lowered:
        return "— begin with the user, and join neighbouring messages of one role."
    return "— change the messages, or use another template (tokenizer.chat_template)."


def _message(message: object, what: str, i: int) -> dict[str, Any]:
    if isinstance(message, Message):
        return {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping) or "role" not in message:
        raise InvalidInputError(
            f"{what} holds {message!r:.80}; a message is a Message or has 'role' and 'content'."
        )
    content = message.get("content")
    if content is None:
        tools = "tool_calls" in message and message["tool_calls"]
        why = "it has tool calls and no content, so there is no text" if tools else "has no content"
        raise InvalidInputError(
            f"message {i} of {what}: {why}; give it a content (it may be empty), or leave it out."
        )
    return {**message, "content": _text(content, f"message {i} of {what}")}


def _text(content: object, where: str) -> str:
    """A text, or the texts of parts ``{"type": "text", "text": …}`` in order."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else [content]
    texts = []
    for part in parts:
        text = (
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        )
        if not isinstance(text, str):
            raise InvalidInputError(
                f"{where}: its content holds {brief(part)}; a content is a text, or a list of parts"
                ' {"type": "text", "text": …}, since only text is read.'
            )
        texts.append(text)
    return "".join(texts)
