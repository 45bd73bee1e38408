"""Chat parsing: lists of ``{"role": ..., "content": ...}`` as messages and examples."""

import json
from collections.abc import Mapping

from odesteer.data.contrast import Example, Message
from odesteer.data.fields import check_text, listed
from odesteer.errors import DataError
from odesteer.untrusted import brief

Chat = tuple[Message, ...]


def is_chat(value: object) -> bool:
    """Whether a field holds messages rather than texts."""
    return isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value)


def read_chat(where: str, name: str, value: object) -> Chat:
    """The messages of a field for which `is_chat` holds."""
    messages = []
    for i, item in enumerate(value if isinstance(value, (list, tuple)) else ()):
        field = f"{name}[{i}]"
        if not isinstance(item, Mapping):
            raise DataError(f"{where}, field {field!r}: found {brief(item)}, which is no message.")
        # Tables give every message the keys of all messages, null where it has none.
        given = [key for key, content in item.items() if content is not None]
        if "role" in given and "tool_calls" in given and "content" not in given:
            raise DataError(
                f"{where}, field {field!r}: the message has tool calls and no content, so there is"
                " no text; give it a content, or leave the row out."
            )
        if not {"role", "content"} <= set(given):
            raise DataError(
                f"{where}, field {field!r}: a message has 'role' and 'content', this one has"
                f" {listed(given)}: {brief(dict(item))}."
            )
        role = check_text(where, f"{field}.role", item["role"])
        messages.append(Message(role, _content(where, f"{field}.content", item["content"])))
    return tuple(messages)


def other_keys(name: str, value: object) -> list[str]:
    """What messages of a field have beside role and content, as ``"chosen[].name"``."""
    if not is_chat(value) or not isinstance(value, (list, tuple)):
        return []
    found = {
        key: None
        for item in value
        if isinstance(item, Mapping)
        for key, content in item.items()
        # Clients write empty lists for tools that were not called.
        if key not in ("role", "content") and content not in (None, [], {})
    }
    return [f"{name}[].{key}" for key in found]


def _content(where: str, name: str, value: object) -> str:
    """The text of a message; of parts ``{"type": "text", "text": …}`` all texts in order."""
    if not isinstance(value, (list, tuple)):
        return check_text(where, name, value, may_be_blank=True)
    texts = []
    for i, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise DataError(
                f"{where}, field '{name}[{i}]': found {brief(part)}; a part is"
                ' {"type": "text", "text": …}, since only text is read.'
            )
        texts.append(check_text(where, f"{name}[{i}].text", part.get("text"), may_be_blank=True))
    return "".join(texts)


def whole_chat(where: str, name: str, prompt: str | Chat, chat: Chat) -> Chat:
    """Prompt and response as one chat that ends with the response.

    Preference data writes the prompt in a field of its own, or at the head of each response, or
    both.
    """
    if chat[-1].role != "assistant":
        raise DataError(
            f"{where}, field {name!r}: the last message is the response and must have the role"
            f" 'assistant', not {brief(chat[-1].role)}."
        )
    if isinstance(prompt, tuple):
        return chat if chat[: len(prompt)] == prompt else (*prompt, *chat)
    if len(chat) == 1:
        if not prompt:
            raise DataError(f"{where}, field {name!r}: the response has no prompt; add one.")
        return (Message("user", prompt), *chat)
    if prompt and all(m.content.strip() != prompt.strip() for m in chat[:-1]):
        raise DataError(
            f"{where}, field {name!r}: the chat does not contain the prompt {brief(prompt)}; it"
            f" begins with {brief(chat[0].content)}."
        )
    return chat


def example_of(where: str, name: str, chat: Chat) -> Example:
    """A whole chat as an example."""
    response = check_text(where, f"{name}[{len(chat) - 1}].content", chat[-1].content)
    return Example(chat[:-1], response)


def common_prompt(a: Chat, b: Chat) -> Chat:
    """The messages that the prompts of two whole chats have in common at the start."""
    n = 0
    while n < min(len(a), len(b)) - 1 and a[n] == b[n]:
        n += 1
    return a[:n]


def group_of_prompt(prompt: str | Chat) -> str:
    """The default group of rows that share this prompt."""
    if isinstance(prompt, str):
        return prompt
    return json.dumps([[m.role, m.content] for m in prompt], ensure_ascii=False)
