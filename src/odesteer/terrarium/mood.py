"""World ``mood``: short stories that turn out happy or sad."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from odesteer.data.contrast import Example
from odesteer.errors import InvalidInputError
from odesteer.terrarium.passage import ParsedPassage, PassageGrammar, SentenceForm, sentence_forms
from odesteer.terrarium.world import INVALID, ContrastPair, Split, Verdict, World, items_of_split

GIRLS = ("Anna", "Mia", "Lucy", "Clara", "Nora", "Ella", "Rosa", "Ivy", "Hanna", "Zoe")
BOYS = ("Tom", "Ben", "Leo", "Max", "Oscar", "Hugo", "Sam", "Jack", "Paul", "Felix")

_PRONOUNS = {
    **{name: {"he": "she", "him": "her", "his": "her"} for name in GIRLS},
    **{name: {"he": "he", "him": "him", "his": "his"} for name in BOYS},
}

_LEXICON = {
    "name": (*GIRLS, *BOYS),
    "he": ("he", "she"),
    "him": ("him", "her"),
    "his": ("his", "her"),
    "thing": ("kite", "drum", "boat", "book", "lamp", "basket", "hat", "wagon", "puzzle", "clock"),
    "animal": ("dog", "cat", "rabbit", "pony", "goat", "duck", "parrot", "hedgehog"),
    "kin": ("mother", "father", "sister", "brother", "grandmother", "uncle", "aunt", "cousin"),
    "place": ("park", "garden", "beach", "market", "library", "harbor", "forest", "bakery",
              "lighthouse", "river"),
    "time": ("morning", "afternoon", "evening"),
}  # fmt: skip

_CAST = ("name", "he", "him", "his", "thing", "animal", "kin", "place")
"""Slots that keep their value through a story; only the time of day is free."""

_INTROS = (
    "One {time}, {name} [went|walked|ran] to the {place} with {his} {animal}.",
    "{name} had a [small|red|old|green] {thing}.",
    "{name} lived near the {place} with {his} {kin}.",
    "It was [a windy|a quiet|an ordinary|a cloudy] {time}, and {name} was at the {place}.",
    "{name} and {his} {kin} carried a {thing} to the {place}.",
    "Last week {name} visited {his} {kin} near the {place}.",
    "There was a {animal} near the {place}, and {name} [saw|heard|noticed] it.",
    "{name} opened a box and found a {thing}.",
    "Every {time}, {name} took {his} {thing} to the {place}.",
    "{name} wanted to show {his} {kin} the {thing}.",
    "On the way to the {place}, {name} met a {animal}.",
    "{name} got up early and packed {his} {thing}.",
    "{His} {kin} sent {name} to the {place} with a {thing}.",
    "Nobody at the {place} knew {name} or {his} {animal}.",
    "{name} was painting a picture of {his} {animal}.",
    "{name} waited at the {place} for {his} {kin}.",
    "Long ago, {name} kept a {animal} and a {thing}.",
    "In the middle of the {time}, {name} heard a noise near the {place}.",
    "{name} had lived with {his} {kin} and a {animal} for years.",
    "Today {name} had to bring a {thing} to {his} {kin}.",
)

_SETUPS = (
    "{He} had {his} {thing} with {him}.",
    "{His} {animal} came along.",
    "{His} {kin} was there, too.",
    "The road led past the {place}.",
    "It was a [Monday|Friday|Sunday] in [April|May|October].",
    "{He} had [never|often] done this before.",
)


@dataclass(frozen=True, slots=True)
class Episode:
    """One step of a story: its sentences in happy stories, sad stories, and any story."""

    happy: tuple[str, ...]
    sad: tuple[str, ...]
    neutral: tuple[str, ...] = ()


EPISODES = (
    # The place and the weather.
    Episode(
        happy=(
            "Warm sunshine [filled|lit up] the [sky|street|whole valley].",
            "The {place} was [bright|full of flowers|full of music].",
            "There was a [party|picnic|dance] at the {place}.",
        ),
        sad=(
            "Cold rain [soaked|drowned] the [road|street|whole valley].",
            "The {place} was [dark|cold and empty|full of shadows].",
            "There was a [fire|flood|funeral] at the {place}.",
        ),
        neutral=(
            "It was [late|early|nearly noon] at the {place}.",
            "Two [farmers|sailors|students] walked by.",
        ),
    ),
    # The family.
    Episode(
        happy=(
            "{His} {kin} [hugged|kissed|praised] {him} [warmly|proudly].",
            "{His} {kin} told a [funny|wonderful] story.",
            "{His} {kin} danced [with {him} |][for joy|in the street].",
        ),
        sad=(
            "{His} {kin} [scolded|ignored|left] {him} [coldly|without a word].",
            "{His} {kin} brought [terrible|bad|sad] news.",
            "{His} {kin} fell [badly|gravely] ill[| that {time}].",
        ),
        neutral=("{His} {kin} [waited|sat] by the door.",),
    ),
    # The animal.
    Episode(
        happy=(
            "The {animal} [jumped for joy|played happily|snuggled up to {him}].",
            "{He} and the {animal} [raced|danced|rolled] in the warm grass.",
            "The {animal} learned a [clever|funny] new trick.",
        ),
        sad=(
            "The {animal} [was very sick|whimpered in pain|lay still].",
            "{He} called for the {animal}, but it [ran away|never came back].",
            "The {animal} was [hungry|hurt] and [shivered|trembled].",
        ),
        neutral=("The {animal} [sat|stood] near the {place}.", "The {animal} drank some water."),
    ),
    # The thing.
    Episode(
        happy=(
            "The {thing} [shone|sparkled|gleamed] [like gold|like new|in the sun].",
            "{He} loved the {thing} more than ever.",
            "The {thing} turned out to be a [treasure|wonderful gift].",
        ),
        sad=(
            "The {thing} was [ruined|broken|lost] for good.",
            "{He} dropped the {thing} into the [mud|fire|deep water].",
            "The {thing} had to be sold to pay the [rent|doctor].",
        ),
        neutral=("{name} looked at the {thing}.", "{He} [held|carried|put down] the {thing}."),
    ),
    # Luck, good or bad.
    Episode(
        happy=(
            "{He} made a [kind|dear|funny] new friend.",
            "{He} won first prize in the [race|contest|spelling bee].",
            "Somebody gave {him} a [delicious|sweet|warm] [cake|pie|bun].",
            "Everyone [clapped|cheered|danced] for {him}.",
        ),
        sad=(
            "{He} lost a [kind|dear|faithful] old friend.",
            "{He} came last in the [race|contest|spelling bee].",
            "Somebody stole {his} last piece of [cake|pie|bread].",
            "Everyone [shouted at|turned away from|forgot about] {him}.",
        ),
        neutral=(
            "Then {he} walked past the [fence|bridge|old well].",
            "{name} stopped [for a while|at the corner|to think].",
        ),
    ),
    # What it made the hero feel.
    Episode(
        happy=(
            "{name} [laughed|smiled|cheered] with [joy|delight].",
            "{He} [hummed|whistled|sang] a [merry|cheerful|jolly] tune.",
            "{name} felt [happy|proud|lucky|loved].",
            "{name} could not stop [smiling|laughing|giggling].",
        ),
        sad=(
            "{name} [cried|wept|sobbed] with [grief|sorrow].",
            "{He} [whispered|sighed|moaned] a [gloomy|bitter|mournful] goodbye.",
            "{name} felt [sad|lonely|afraid|hopeless].",
            "{name} could not stop [crying|weeping|shaking].",
        ),
    ),
    # The end.
    Episode(
        happy=(
            "It was the [best|happiest|sweetest] {time} of {his} life.",
            "In the end, [all was well|everyone was happy|{his} wish came true].",
            "{name} went home with a [big smile|full heart|happy heart].",
            "That night {name} [slept soundly|dreamed sweet dreams].",
            "And {name} and the {animal} lived happily ever after.",
        ),
        sad=(
            "It was the [worst|saddest|loneliest] {time} of {his} life.",
            "In the end, [all was lost|nobody cared|there was no hope left].",
            "{name} went home with a [broken heart|heavy heart|long face].",
            "That night {name} [lay awake|cried in the dark|had terrible dreams].",
            "And {name} never saw the {animal} again.",
        ),
    ),
)
"""In the order of a story; each occurs at most once."""

_SLIP = 0.04
"""How often a single sentence has the other mood."""


_EPISODE_RATE = 0.75
"""How often an episode occurs."""
_NEUTRAL_RATE = 0.15
"""How often it is neutral, if it has neutral sentences."""


@dataclass(frozen=True, slots=True)
class _EpisodeForms:
    """The sentence forms of an episode."""

    happy: tuple[SentenceForm, ...]
    sad: tuple[SentenceForm, ...]
    neutral: tuple[SentenceForm, ...]

    @classmethod
    def of(cls, episode: Episode, stage: int) -> _EpisodeForms:
        return cls(
            happy=sentence_forms(_LEXICON, episode.happy, stage=stage, valence=1),
            sad=sentence_forms(_LEXICON, episode.sad, stage=stage, valence=-1),
            neutral=sentence_forms(_LEXICON, episode.neutral, stage=stage),
        )


class MoodWorld(World):
    """Stories of four to nine sentences; the hidden attribute is whether they are happy.

    A story has some of :data:`EPISODES`, in their order, and keeps its cast: the hero's name and
    pronouns, and the thing, animal, relative and place of its first sentences. No other things
    of these kinds may occur later.
    """

    name = "mood"
    title = "lets stories turn out happy instead of sad"
    poles = ("happy", "sad")
    position = "random_answer"
    layer = 5
    max_new_tokens = 120

    def document(self, rng: random.Random, attribute: bool) -> str:
        intro, start = self.intro(rng, {}, self._intros)
        return f"{intro} {self.continuation(rng, start, attribute)}\n"

    def intro(
        self, rng: random.Random, known: Mapping[str, str], forms: tuple[SentenceForm, ...]
    ) -> tuple[str, ParsedPassage]:
        """A first sentence, and its parse; ``known`` may fix parts of the cast."""
        name = known.get("name") or rng.choice(_LEXICON["name"])
        cast = _cast({**known, "name": name})
        text, _ = rng.choice(forms).template.sample(rng, cast)
        passage = self._grammar.parse(text, _EMPTY)
        if passage is None:
            raise AssertionError(f"the grammar does not parse its own intro {text!r}")
        return text, passage

    def continuation(
        self, rng: random.Random, start: ParsedPassage, happy: bool, slip: float = _SLIP
    ) -> str:
        """The story after its first sentence: a setting or none, then at least three episodes."""
        while True:
            sentences: list[str] = []
            passage = start
            for choices in self._plan(rng, happy, slip):
                written = self._grammar.sample(rng, choices, passage)
                if written is not None:
                    sentence, passage = written
                    sentences.append(sentence)
            if sum(form.stage > _SETUP for form in passage.forms) >= _MIN_EPISODES:
                return " ".join(sentences)

    def _plan(
        self, rng: random.Random, happy: bool, slip: float
    ) -> Iterator[tuple[SentenceForm, ...]]:
        if rng.random() < 0.6:
            yield self._setups
        for number, episode in enumerate(self._episodes):
            if rng.random() >= _EPISODE_RATE:
                continue
            if episode.neutral and rng.random() < _NEUTRAL_RATE:
                yield episode.neutral
            else:
                mood = self._mood_of(number, happy)
                mood = mood if rng.random() >= slip else not mood
                yield episode.happy if mood else episode.sad

    def _mood_of(self, episode: int, attribute: bool) -> bool:
        """Whether an episode, by its number, is happy in a story with this attribute."""
        return attribute

    def judge(self, prompt: str, completion: str) -> Verdict:
        before = self._grammar.parse(prompt.strip(), _EMPTY)
        if before is None or not before.forms or before.forms[0].stage != _INTRO:
            raise InvalidInputError(
                f"the prompt is {prompt[:80]!r}; the mood world judges continuations of its own "
                "stories, from their first sentence on"
            )
        after = self._grammar.parse(self._completion(completion), before)
        if after is None or after == before:
            return INVALID
        return Verdict(attribute=self._attribute(after.forms[len(before.forms) :]), valid=True)

    def _attribute(self, forms: Sequence[SentenceForm]) -> bool | None:
        """The attribute of the sentences of a completion; None if they are undecided."""
        balance = sum(form.valence for form in forms)
        return balance > 0 if balance else None

    def _prompt(self, rng: random.Random, split: Split) -> str:
        return self._intro(rng, split)[0]

    def _contrast(self, rng: random.Random, split: Split) -> ContrastPair:
        intro, start, group = self._intro(rng, split)
        return ContrastPair(
            positive=self._example(rng, intro, start, happy=True),
            negative=self._example(rng, intro, start, happy=False),
            group=group,
        )

    def _example(
        self, rng: random.Random, intro: str, start: ParsedPassage, happy: bool
    ) -> Example:
        while True:
            story = self.continuation(rng, start, happy, slip=0.0)
            if self.judge(intro, story).achieves(happy):
                return Example(prompt=intro, response=f" {story}")

    def _intro(self, rng: random.Random, split: Split) -> tuple[str, ParsedPassage, str]:
        names = (*items_of_split(GIRLS, split), *items_of_split(BOYS, split))
        known = {
            "name": rng.choice(names),
            "thing": rng.choice(items_of_split(_LEXICON["thing"], split)),
        }
        text, passage = self.intro(rng, known, items_of_split(self._intros, split))
        return text, passage, f"{known['name']}/{passage.forms[0].template.source}"

    @cached_property
    def _intros(self) -> tuple[SentenceForm, ...]:
        return sentence_forms(_LEXICON, _INTROS, stage=_INTRO, introduces=True)

    @cached_property
    def _setups(self) -> tuple[SentenceForm, ...]:
        return sentence_forms(_LEXICON, _SETUPS, stage=_SETUP, introduces=True)

    @cached_property
    def _episodes(self) -> tuple[_EpisodeForms, ...]:
        return tuple(
            _EpisodeForms.of(e, stage) for stage, e in enumerate(EPISODES, start=_SETUP + 1)
        )

    @cached_property
    def _grammar(self) -> PassageGrammar:
        episode_forms = [form for e in self._episodes for form in (*e.happy, *e.sad, *e.neutral)]
        forms = (*self._intros, *self._setups, *episode_forms)
        once = {form.stage for form in forms}
        return PassageGrammar(forms, lasting=_CAST, once=once, deduce=_cast)


_INTRO, _SETUP = range(2)
FIRST_EPISODE = 2
"""The stage of the first of :data:`EPISODES`."""
_MIN_EPISODES = 3
"""Episodes of the shortest story."""
_EMPTY = ParsedPassage.start()


def _cast(known: Mapping[str, str]) -> dict[str, str]:
    """``known`` with the pronouns of the hero's name."""
    return {**known, **_PRONOUNS.get(known.get("name", ""), {})}
