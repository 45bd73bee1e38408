"""Preference formats: parsing of a row as a pair or as a labelled text.

A row has one of these formats, and all rows of a source have the same one:

    {positive, negative}    texts, lists of texts, chats, or transcripts; optional prompt and group
    {chosen, rejected}      the same under the names of preference data
    {text, label}           a text or a chat; optional prompt and group

A chat is a list of ``{"role": ..., "content": ...}`` whose last message is the response. A
transcript is a text with turns, ``"Human: … Assistant: …"``, that begins with the prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from odesteer.data.chats import (
    Chat,
    common_prompt,
    example_of,
    group_of_prompt,
    is_chat,
    other_keys,
    read_chat,
    whole_chat,
)
from odesteer.data.contrast import Example
from odesteer.data.fields import (
    Spelling,
    check_text,
    is_typo,
    listed,
    near,
    python_argument,
)
from odesteer.data.labels import ACCEPTED_LABELS, label_meaning, label_text
from odesteer.data.transcripts import shared_opening
from odesteer.errors import DataError, InvalidInputError
from odesteer.untrusted import brief, is_integer

RowFormat = tuple[str, str]

PAIR_FORMATS: tuple[RowFormat, ...] = (("positive", "negative"), ("chosen", "rejected"))
LABELLED: RowFormat = ("text", "label")
OPTIONAL = ("prompt", "group")
FIELDS = (*PAIR_FORMATS[0], *PAIR_FORMATS[1], *LABELLED, *OPTIONAL)
ACCEPTED = (
    "{positive, negative}, {prompt, chosen, rejected} or {text, label}; prompt and group are"
    " optional in each"
)


@dataclass(frozen=True)
class SourceRow:
    """One row of a source: its place (``"line 3"``) and its fields, not parsed yet."""

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class ParsedRow:
    """A row after parsing. ``group`` is None for a pair that has neither group nor prompt."""

    index: int
    place: str
    form: RowFormat
    positive: tuple[Example, ...]
    negative: tuple[Example, ...]
    group: str | None
    group_is_given: bool

    @property
    def examples(self) -> tuple[Example, ...]:
        return self.positive + self.negative

    @property
    def kind(self) -> tuple[str, ...]:
        return (
            "{" + ", ".join(self.form) + "}",
            "a chat" if self.examples[0].is_chat else "plain text",
            "one with a group" if self.group_is_given else "one without a group",
        )


class RowParser:
    """Parses rows one by one.

    Attributes:
        unused: names of the columns that were not read.
        without_response: places of transcripts that end where a response should begin.
    """

    def __init__(
        self, source: str, columns: dict[str, str], spelled: Spelling = python_argument
    ) -> None:
        for name in columns:
            if name not in FIELDS:
                raise InvalidInputError(
                    f"{spelled('columns', {name: columns[name]})} has the unknown field {name!r};"
                    f" fields are {', '.join(FIELDS)}."
                )
        self.source = source
        self.columns = columns
        self.unused: dict[str, None] = {}
        self.without_response: list[str] = []
        self.n_read = 0
        self._numbers: dict[str, str] = {}
        example = spelled("columns", {"text": "statement"})
        self._renaming = f"Name columns that are called otherwise with {example}."

    def read(self, row: SourceRow) -> ParsedRow | None:
        """The row parsed; None for transcripts of which one has no response."""
        self.n_read += 1
        where = f"{self.source}, {row.place}"
        fields = self._renamed(where, row.fields)
        form = _format_of(where, fields, self._renaming)
        self._check_others(where, form, fields)
        prompt = _prompt(where, fields.get("prompt"))
        group = _group(where, fields.get("group"))
        for name in (*form, "prompt"):
            self.unused.update(dict.fromkeys(other_keys(name, fields.get(name))))
        sides: tuple[tuple[Example, ...], tuple[Example, ...]] | None
        own: str | None
        if form == LABELLED:
            found = _single_cut(where, prompt, fields)
            if found is None:
                self.without_response.append(row.place)
                return None
            example = found
            own = _group_or_none(example.prompt) or example.response
            sides = (
                ((example,), ()) if self._label(where, row, fields["label"]) else ((), (example,))
            )
        elif any(is_chat(fields[name]) for name in form):
            sides, chat = _chat_pair(where, form, prompt, fields)
            own = group_of_prompt(chat)
        else:
            sides, common = _text_pair(where, form, prompt, fields)
            own = _group_or_none(common)
            if sides is None:
                self.without_response.append(row.place)
                return None
        return ParsedRow(self.n_read, row.place, form, *sides, group or own, group is not None)

    def _renamed(self, where: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        for name, column in self.columns.items():
            if column not in fields:
                like = near(column, fields)
                hint = f" Did you mean {like!r}?" if like else ""
                raise DataError(
                    f"{where}: no column {column!r} to read {name!r} from; the columns are"
                    f" {listed(fields)}.{hint}"
                )
        taken = set(self.columns.values())
        self.unused.update(dict.fromkeys(n for n in self.columns if n in fields and n not in taken))
        others = {n: v for n, v in fields.items() if n not in taken and n not in self.columns}
        return others | {name: fields[column] for name, column in self.columns.items()}

    def _label(self, where: str, row: SourceRow, value: object) -> bool:
        text = label_text(value)
        is_positive = label_meaning(text)
        if text is None or is_positive is None:
            raise DataError(f"{where}, field 'label': found {brief(value)}; use {ACCEPTED_LABELS}.")
        # Where both occur, 0 is the label of neither side.
        other = self._numbers.get({"0": "-1", "-1": "0"}.get(text, ""))
        if other is not None:
            raise DataError(
                f"{where}, field 'label': found {brief(value)}, but {other} has"
                f" {'-1' if text == '0' else '0'}; of the two, keep the one that is negative."
            )
        self._numbers.setdefault(text, row.place)
        return is_positive

    def _check_others(self, where: str, form: RowFormat, fields: Mapping[str, Any]) -> None:
        for name in fields:
            if name in form or name in OPTIONAL:
                continue
            meant = next((o for o in OPTIONAL if is_typo(name, o) and o not in fields), None)
            if meant:
                raise DataError(f"{where}: unknown field {brief(name)}. Did you mean {meant!r}?")
            self.unused[name] = None


def _format_of(where: str, fields: Mapping[str, Any], renaming: str) -> RowFormat:
    forms = (*PAIR_FORMATS, LABELLED)
    present = [form for form in forms if all(fields.get(name) is not None for name in form)]
    if len(present) == 1:
        return present[0]
    if present:
        both = " and ".join("{" + ", ".join(form) + "}" for form in present)
        raise DataError(f"{where}: the row has {both}; keep one of them.")
    for form in forms:
        for name, other in (form, form[::-1]):
            if other in fields and fields.get(name) is None:
                if name in fields:
                    raise DataError(f"{where}, field {name!r}: found null.")
                like = near(name, [n for n in fields if n not in FIELDS])
                hint = f" Did you mean it by {like!r}?" if like else ""
                raise DataError(
                    f"{where}: {other!r} without {name!r}, found the fields {listed(fields)}.{hint}"
                    f" A row is {ACCEPTED}. {renaming}"
                )
    meant = [(name, near(name, FIELDS)) for name in fields]
    hints = ", ".join(f"{like!r} by {brief(name)}" for name, like in meant if like)
    raise DataError(
        f"{where}: found the fields {listed(fields)}; a row is {ACCEPTED}."
        f"{f' Did you mean {hints}?' if hints else ''} {renaming}"
    )


def _group(where: str, value: object) -> str | None:
    if value is None:
        return None
    if is_integer(value):
        return str(value)
    return check_text(where, "group", value)


def _prompt(where: str, value: object) -> str | Chat:
    if is_chat(value):
        return read_chat(where, "prompt", value)
    return "" if value is None else check_text(where, "prompt", value, may_be_blank=True)


def _single(where: str, name: str, prompt: str | Chat, value: object) -> Example:
    if is_chat(value):
        return example_of(
            where, name, whole_chat(where, name, prompt, read_chat(where, name, value))
        )
    return Example(prompt, check_text(where, name, value))


def _single_cut(where: str, prompt: str | Chat, fields: Mapping[str, Any]) -> Example | None:
    """The example of a labelled row; a transcript is cut at its last turn, as those of pairs.

    None where it ends there.
    """
    example = _single(where, "text", prompt, fields["text"])
    opening = shared_opening([example.response])
    if opening is None or is_chat(fields["text"]) or _is_kept_whole(prompt, fields, opening):
        return example
    response = example.response[len(opening) :]
    return Example(opening, response) if response.strip() else None


def _is_kept_whole(prompt: str | Chat, fields: Mapping[str, Any], opening: str) -> bool:
    """Whether the prompt of a row, other than none, says that its texts are whole responses."""
    if isinstance(prompt, tuple):
        return True
    is_given = fields.get("prompt") is not None
    return is_given and (not prompt.strip() or prompt.strip() not in opening)


def _texts(where: str, name: str, prompt: str | Chat, value: object) -> tuple[Example, ...]:
    if not isinstance(value, (list, tuple)):
        return (_single(where, name, prompt, value),)
    if not value:
        raise DataError(f"{where}, field {name!r}: the list is empty.")
    return tuple(_single(where, f"{name}[{i}]", prompt, text) for i, text in enumerate(value))


def _text_pair(
    where: str, form: RowFormat, prompt: str | Chat, fields: Mapping[str, Any]
) -> tuple[tuple[tuple[Example, ...], tuple[Example, ...]] | None, str | Chat]:
    """The two sides of a pair of texts, and their prompt.

    The prompt of transcripts is the opening that they share; no sides where one of them ends
    with it. An empty prompt, other than none, says that the texts are to be left whole.
    """
    sides = (
        _texts(where, form[0], prompt, fields[form[0]]),
        _texts(where, form[1], prompt, fields[form[1]]),
    )
    opening = shared_opening([example.response for side in sides for example in side])
    if opening is None or _is_kept_whole(prompt, fields, opening):
        return sides, prompt
    responses = [[example.response[len(opening) :] for example in side] for side in sides]
    if not all(text.strip() for side in responses for text in side):
        return None, opening
    positive, negative = (tuple(Example(opening, text) for text in side) for side in responses)
    return (positive, negative), opening


def _chat_pair(
    where: str, form: RowFormat, prompt: str | Chat, fields: Mapping[str, Any]
) -> tuple[tuple[tuple[Example], tuple[Example]], Chat]:
    """The two sides of a pair of chats, and the prompt that they have in common."""
    for name in form:
        if not is_chat(fields[name]):
            raise DataError(
                f"{where}, field {name!r}: found {brief(fields[name])}, while the other side is a"
                " chat; both must be."
            )
    positive, negative = (
        whole_chat(where, name, prompt, read_chat(where, name, fields[name])) for name in form
    )
    common = common_prompt(positive, negative)
    if not common:
        raise DataError(
            f"{where}: {form[0]!r} and {form[1]!r} answer different prompts, {brief(positive[0])}"
            f" and {brief(negative[0])}."
        )
    sides = (example_of(where, form[0], positive),), (example_of(where, form[1], negative),)
    return sides, common


def _group_or_none(prompt: str | Chat) -> str | None:
    return group_of_prompt(prompt) if isinstance(prompt, tuple) or prompt.strip() else None
