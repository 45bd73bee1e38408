"""Grammar of passages: sentences in ordered stages, each form at most once, with shared slots."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from odesteer.terrarium.grammar import Lexicon, Template, sentences

SlotValues = Mapping[str, str]
Deduce = Callable[[SlotValues], dict[str, str]]


@dataclass(frozen=True, slots=True)
class SentenceForm:
    """A form of sentence that a passage may contain.

    ``stage`` orders sentences: a later sentence never has an earlier stage. ``valence`` is +1, -1
    or 0 for the hidden attribute. ``introduces``: it may give values to lasting slots that have
    none yet.
    """

    template: Template
    stage: int
    valence: int
    introduces: bool


def sentence_forms(
    lexicon: Lexicon,
    sources: Iterable[str],
    *,
    stage: int,
    valence: int = 0,
    introduces: bool = False,
) -> tuple[SentenceForm, ...]:
    """One :class:`SentenceForm` for each template source."""
    return tuple(SentenceForm(Template(s, lexicon), stage, valence, introduces) for s in sources)


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """A parsed passage: the forms of its sentences, and the values of its lasting slots."""

    forms: tuple[SentenceForm, ...]
    known: dict[str, str]

    @classmethod
    def start(cls, known: SlotValues | None = None) -> ParsedPassage:
        """An empty passage, with slot values that are known from elsewhere."""
        return cls((), dict(known or {}))

    @property
    def balance(self) -> int:
        """Positive minus negative sentences."""
        return sum(form.valence for form in self.forms)


class PassageGrammar:
    """Which sentences may follow a passage; samples and parses passages.

    ``lasting`` slots keep their value through the passage (a hero's name, the thing a story is
    about); other slots (a weekday) are free in each sentence. ``once`` are the stages that hold
    at most one sentence. ``deduce`` gives further values that follow from the known ones
    (pronouns from a name).
    """

    def __init__(
        self,
        forms: Sequence[SentenceForm],
        lasting: Iterable[str],
        once: Iterable[int],
        deduce: Deduce = dict,
    ) -> None:
        self._forms = tuple(forms)
        self._lasting = frozenset(lasting)
        self._once = frozenset(once)
        self._deduce = deduce

    def allowed(self, form: SentenceForm, before: ParsedPassage) -> bool:
        """Whether a form may come next: unused, in order, and its lasting slots have values."""
        if form in before.forms:
            return False
        if before.forms:
            stage = before.forms[-1].stage
            if form.stage < stage or (form.stage == stage and stage in self._once):
                return False
        return form.introduces or (form.template.slots & self._lasting <= before.known.keys())

    def sample(
        self, rng: random.Random, choices: Sequence[SentenceForm], before: ParsedPassage
    ) -> tuple[str, ParsedPassage] | None:
        """One of ``choices`` as the next sentence; None if none of them is allowed."""
        possible = [form for form in choices if self.allowed(form, before)]
        if not possible:
            return None
        form = rng.choice(possible)
        text, used = form.template.sample(rng, before.known)
        return text, self._after(before, form, used)

    def parse(self, text: str, before: ParsedPassage) -> ParsedPassage | None:
        """Parse ``text`` as what follows ``before``; None if this grammar does not generate it."""
        return self._parse(sentences(text), before)

    def _parse(self, rest: Sequence[str], before: ParsedPassage) -> ParsedPassage | None:
        if not rest:
            return before
        for form in self._forms:
            if not self.allowed(form, before):
                continue
            used = form.template.match(rest[0])
            if used is None or any(before.known.get(s, v) != v for s, v in used.items()):
                continue
            passage = self._parse(rest[1:], self._after(before, form, used))
            if passage is not None:
                return passage
        return None

    def _after(self, before: ParsedPassage, form: SentenceForm, used: SlotValues) -> ParsedPassage:
        lasting = {slot: value for slot, value in used.items() if slot in self._lasting}
        known = self._deduce({**before.known, **lasting})
        return ParsedPassage((*before.forms, form), known)
