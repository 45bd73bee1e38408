"""Template language for sentences: a template both samples and recognises text.

``[a|b]`` is a choice (it may be nested and may hold an empty option), ``{slot}`` is filled from a
lexicon, and ``{Slot}`` is the same slot with a capital letter. A slot that occurs twice in one
template has one value. A judge runs the templates that generated the training text, so it is
exact by construction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from odesteer.errors import InvalidInputError

Lexicon = Mapping[str, Sequence[str]]
Bindings = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    capital: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Sequence, ...]


_Sequence = tuple["str | _Slot | _Choice", ...]

_SPECIAL = re.compile(r"[\[\]{}|]")
_SENTENCE_END = re.compile(r"(?<=[.?!]) ")


def capitalize(text: str) -> str:
    """``text`` with its first letter in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


def sentences(text: str) -> list[str]:
    """The sentences of ``text``: it is cut after ``.``, ``?`` or ``!`` followed by a space."""
    return [part for part in _SENTENCE_END.split(text) if part]


class Template:
    """One sentence pattern over the slots of a lexicon.

    The lexicon gives each slot its whole domain; at sampling time ``bound`` narrows slots to one
    value, and :meth:`match` returns the values it found, for the caller to check.
    """

    def __init__(self, source: str, lexicon: Lexicon) -> None:
        self.source = source
        self._nodes = _parse(source)
        slots: list[_Slot] = []
        pattern = _pattern(self._nodes, lexicon, slots, source)
        self._regex = re.compile(pattern)
        self._groups = tuple(slots)
        self._lexicon = {slot.name: tuple(lexicon[slot.name]) for slot in slots}
        self.slots = frozenset(self._lexicon)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    def sample(self, rng: random.Random, bound: Bindings) -> tuple[str, dict[str, str]]:
        """A random sentence, and the value of each slot that occurs in it."""
        used: dict[str, str] = {}
        return self._write(self._nodes, rng, bound, used), used

    def wordings(self) -> tuple[str, ...]:
        """Every text of a template without slots, the first options first."""
        if self.slots:
            raise InvalidInputError(f"template {self.source!r} has slots {sorted(self.slots)}")
        return tuple(_wordings(self._nodes))

    def match(self, text: str) -> dict[str, str] | None:
        """The slot values with which this template generates ``text``; None if it does not."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        values: dict[str, str] = {}
        for slot, raw in zip(self._groups, found.groups(), strict=True):
            if raw is None:  # the slot stands in an option that was not taken
                continue
            value = _uncapitalize(raw, self._lexicon[slot.name]) if slot.capital else raw
            if values.setdefault(slot.name, value) != value:
                return None
        return values

    def _write(
        self, nodes: _Sequence, rng: random.Random, bound: Bindings, used: dict[str, str]
    ) -> str:
        parts = []
        for node in nodes:
            if isinstance(node, str):
                parts.append(node)
            elif isinstance(node, _Choice):
                parts.append(self._write(rng.choice(node.options), rng, bound, used))
            else:
                if node.name not in used:
                    value = bound.get(node.name)
                    used[node.name] = value or rng.choice(self._lexicon[node.name])
                value = used[node.name]
                parts.append(capitalize(value) if node.capital else value)
        return "".join(parts)


def _parse(source: str) -> _Sequence:
    options, end = _parse_options(source, 0, depth=0)
    if end != len(source) or len(options) != 1:
        raise InvalidInputError(
            f"template {source!r} is malformed near character {end}: "
            "brackets must pair up and '|' belongs inside '[...]'"
        )
    return options[0]


def _parse_options(source: str, start: int, depth: int) -> tuple[list[_Sequence], int]:
    """The ``|``-separated options from ``start`` to the closing bracket or the end."""
    options: list[_Sequence] = []
    nodes: list[str | _Slot | _Choice] = []
    at = start
    while at < len(source):
        special = _SPECIAL.search(source, at)
        if special is None:
            nodes.append(source[at:])
            at = len(source)
            break
        if special.start() > at:
            nodes.append(source[at : special.start()])
        at = special.start()
        mark = source[at]
        if mark == "[":
            inner, at = _parse_options(source, at + 1, depth + 1)
            if at >= len(source):
                raise InvalidInputError(f"template {source!r}: a '[' is never closed")
            nodes.append(_Choice(tuple(inner)))
            at += 1
        elif mark == "{":
            end = source.find("}", at)
            name = source[at + 1 : end]
            if end < 0 or not name.isidentifier():
                raise InvalidInputError(f"template {source!r}: bad slot at character {at}")
            nodes.append(_Slot(name.lower(), capital=name[0].isupper()))
            at = end + 1
        elif mark == "|" and depth > 0:
            options.append(tuple(nodes))
            nodes = []
            at += 1
        else:
            break
    options.append(tuple(nodes))
    return options, at


def _wordings(nodes: _Sequence) -> list[str]:
    texts = [""]
    for node in nodes:
        if isinstance(node, str):
            texts = [text + node for text in texts]
        elif isinstance(node, _Choice):
            options = [w for option in node.options for w in _wordings(option)]
            texts = [text + option for text in texts for option in options]
    return texts


def _pattern(nodes: _Sequence, lexicon: Lexicon, slots: list[_Slot], source: str) -> str:
    parts = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(re.escape(node))
        elif isinstance(node, _Choice):
            inner = (_pattern(option, lexicon, slots, source) for option in node.options)
            parts.append("(?:" + "|".join(inner) + ")")
        else:
            if node.name not in lexicon:
                raise InvalidInputError(
                    f"template {source!r} uses slot {node.name!r}; "
                    f"the lexicon has {sorted(lexicon)}"
                )
            words = [capitalize(w) if node.capital else w for w in lexicon[node.name]]
            # Longest first, so that 'back door' is tried before 'back'.
            words.sort(key=len, reverse=True)
            parts.append("(" + "|".join(map(re.escape, words)) + ")")
            slots.append(node)
    return "".join(parts)


def _uncapitalize(raw: str, domain: Sequence[str]) -> str:
    return next(word for word in domain if capitalize(word) == raw)
