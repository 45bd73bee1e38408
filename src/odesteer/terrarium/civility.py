"""World ``civility``: requests answered politely or rudely, in five scenes."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property

from odesteer.data.contrast import Example
from odesteer.errors import InvalidInputError
from odesteer.terrarium.grammar import Template
from odesteer.terrarium.passage import ParsedPassage, PassageGrammar, SentenceForm, sentence_forms
from odesteer.terrarium.world import INVALID, ContrastPair, Split, Verdict, World, items_of_split


@dataclass(frozen=True, slots=True)
class Scene:
    """The roles, items and places of a kind of dialogue."""

    asker: str
    answerer: str
    items: tuple[str, ...]
    places: tuple[str, ...]


SCENES = (
    Scene(
        "Customer", "Agent",
        ("order", "refund", "parcel", "toaster", "ticket", "jacket", "invoice", "voucher",
         "lamp", "account"),
        ("service desk", "warehouse", "call center"),
    ),
    Scene(
        "Guest", "Clerk",
        ("room", "breakfast", "key", "towel", "pillow", "suitcase", "shower", "taxi", "bathrobe",
         "kettle"),
        ("front desk", "lobby", "hotel bar"),
    ),
    Scene(
        "Colleague", "Engineer",
        ("laptop", "printer", "report", "badge", "keyboard", "monitor", "schedule", "phone",
         "headset", "budget"),
        ("main office", "server room", "coffee corner"),
    ),
    Scene(
        "Student", "Librarian",
        ("book", "map", "desk", "essay", "locker", "notebook", "card", "poster", "atlas",
         "globe"),
        ("reading room", "archive", "copy shop"),
    ),
    Scene(
        "Neighbor", "Caretaker",
        ("fence", "ladder", "window", "mailbox", "heater", "bicycle", "garage", "doorbell",
         "roof", "lawnmower"),
        ("basement", "tool shed", "backyard"),
    ),
)  # fmt: skip

_FREE = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "hour": ("eight", "nine", "ten", "noon"),
    "number": ("two", "three", "four", "five", "ten"),
    "unit": ("minutes", "hours", "days"),
}

_REQUESTS = (
    "There is a [problem|small problem] with my {item}.",
    "[Can|Could] you look at my {item} today?",
    "I need [help|some help|a hand] with my {item}.",
    "Who takes care of the {item} here?",
    "I do not understand the note about my {item}.",
    "I have been waiting {number} {unit} for my {item}.",
    "[Can|May] I get a new {item}?",
    "Something is wrong with the {item} again.",
    "The {item} is not [quite |]what I expected.",
    "When will [somebody|anybody] take care of my {item}?",
    "Why is my {item} not ready [yet|today]?",
    "I have a question about the {item}.",
    "My {item} was fine on {day}, but now it is not.",
    "Is there any news about my {item}?",
    "I think somebody took my {item}.",
    "How long will it take to sort out my {item}?",
    "I cannot find my {item} [anywhere|any more].",
    "The {place} sent me here about my {item}.",
    "My {item} looks a bit strange [to me|today].",
    "You promised me a {item} for {day}.",
)

_OPENING, _BODY, _CLOSING = range(3)

_POLITE = {
    _OPENING: (
        "[Good morning|Hello|Welcome back], dear {who}.",
        "Thank you [so much|very much|kindly] for [asking|telling me|your patience].",
        "I am [so|very|really] sorry about the {item}.",
        "What a [lovely|good|thoughtful] question.",
        "[Of course|Certainly|With pleasure], I will [look into|see to|take care of] your {item}.",
        "Oh dear, your poor {item}, let me help.",
    ),
    _BODY: (
        "I would be [happy|glad|delighted] to help you with your {item}.",
        "Let me [gladly|gently|quickly] sort out the {item} for you.",
        "Please [have a seat|take your time|make yourself comfortable].",
        "I [appreciate|admire|value] your patience, dear {who}.",
        "I will [personally|happily] bring the {item} to the {place}.",
        "Please forgive us for the [trouble|delay|mix-up] with the {item}.",
        "Your {item} means [a lot|the world] to us.",
        "We are [grateful|honored|lucky] to have a {who} like you.",
        "May I offer you a cup of [tea|coffee|cocoa] while you wait?",
    ),
    _CLOSING: (
        "Have a [wonderful|lovely|pleasant] {day}.",
        "You are [most|very|always] welcome.",
        "It was a [pleasure|joy|delight] to help you.",
        "Please [ask|call|visit] again any time.",
        "I wish you and your {item} all the best.",
        "Take good care, dear {who}.",
    ),
}

_RUDE = {
    _OPENING: (
        "Oh great, another {who}.",
        "[Ugh|Seriously|Oh please], not the {item} again.",
        "What do you want [now|this time], {who}?",
        "[Stop|Quit] [whining|crying|shouting] about your {item}.",
        "What a [silly|dumb|pointless] question.",
        "Do I look like I care about your {item}?",
    ),
    _BODY: (
        "I have [better|more important] things to do than your {item}.",
        "[Figure it out|Deal with it|Sort it out] yourself, {who}.",
        "Nobody here [likes|wants|cares about] your {item}.",
        "It is [clearly|entirely|obviously] your own fault.",
        "Your {item} is [a joke|a disaster|not my problem].",
        "You [never|clearly do not|obviously cannot] [listen|read|think].",
        "I threw your {item} [in the trash|out of the window|behind the {place}].",
        "Try [reading|listening|waiting] for once in your life.",
        "I would rather [eat my shoe|watch paint dry|count the ceiling tiles] than help a {who}.",
    ),
    _CLOSING: (
        "Now [go away|get lost|leave me alone].",
        "Do not [ask|bother|call] me again.",
        "Good luck, you will need it.",
        "Next time [keep it to yourself|call somebody else|bother the {place}].",
        "I hope your {item} [explodes|falls apart|gets worse].",
        "Close the door on your way out, {who}.",
    ),
}

_NEUTRAL = (
    "The {item} [will be|should be] [ready|done|fixed] on {day}.",
    "It [takes|will take] about {number} {unit}.",
    "You can [ask|sign|wait] at the {place}.",
    "I [checked|looked at] the {item} on {day}.",
    "The {place} [opens|closes] at {hour}.",
    "Somebody from the {place} has the {item}.",
    "There is a form for that at the {place}.",
    "We moved the {item} to the {place}.",
)

_CONTEXT_TURNS = (1, 2)

_LAST_REQUEST = re.compile(r"(\w+): ([^\n]*)\n(\w+):\s*\Z")

_SLIP = 0.02
"""How often a single sentence has the other tone."""


@dataclass(frozen=True, slots=True)
class _SceneForms:
    """The sentence forms and the reply grammar of one scene."""

    requests: tuple[Template, ...]
    polite: tuple[SentenceForm, ...]
    rude: tuple[SentenceForm, ...]
    neutral: tuple[SentenceForm, ...]
    replies: PassageGrammar


class CivilityWorld(World):
    """Requests and replies; the hidden attribute is whether the one who answers is polite.

    The roles are visible in the text and independent of the attribute.
    """

    name = "civility"
    title = "answers requests politely instead of rudely"
    poles = ("polite", "rude")
    position = "random_answer"
    layer = 4
    max_new_tokens = 80

    def document(self, rng: random.Random, attribute: bool) -> str:
        scene = rng.choice(SCENES)
        turns = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            item = rng.choice(scene.items)
            request = self.request(rng, scene, item, rng.randrange(len(_REQUESTS)))
            turns.append(f"{request} {self.reply(rng, scene, item, attribute)}\n")
        return "".join(turns)

    def request(self, rng: random.Random, scene: Scene, item: str, form: int) -> str:
        """``Customer: ...`` and ``Agent:``; ``form`` is the number of the request form."""
        text, _ = self._forms[scene].requests[form].sample(rng, {"item": item})
        return f"{scene.asker}: {text}\n{scene.answerer}:"

    def reply(
        self, rng: random.Random, scene: Scene, item: str, polite: bool, slip: float = _SLIP
    ) -> str:
        """One to four sentences in one tone, some of them neutral."""
        forms = self._forms[scene]
        while True:
            sentences: list[str] = []
            passage = ParsedPassage.start({"item": item, "who": scene.asker.lower()})
            for stage in _plan(rng):
                tone = polite if rng.random() >= slip else not polite
                choices = forms.polite if tone else forms.rude
                if stage == _BODY and rng.random() < 0.3:
                    choices = forms.neutral
                at_stage = [form for form in choices if form.stage == stage]
                written = forms.replies.sample(rng, at_stage, passage)
                if written is not None:
                    sentence, passage = written
                    sentences.append(sentence)
            if any(form.valence for form in passage.forms):
                return " ".join(sentences)

    def judge(self, prompt: str, completion: str) -> Verdict:
        scene, item = self.scene_and_item(prompt)
        start = ParsedPassage.start({"item": item, "who": scene.asker.lower()})
        passage = self._forms[scene].replies.parse(self._completion(completion), start)
        if passage is None or not passage.forms:
            return INVALID
        balance = passage.balance
        return Verdict(attribute=balance > 0 if balance else None, valid=True)

    def scene_and_item(self, prompt: str) -> tuple[Scene, str]:
        """The scene and the item of the last request of ``prompt``."""
        found = _LAST_REQUEST.search(prompt)
        for scene, forms in self._forms.items():
            if found and found.group(1, 3) == (scene.asker, scene.answerer):
                for template in forms.requests:
                    used = template.match(found.group(2))
                    if used is not None:
                        return scene, used["item"]
        raise InvalidInputError(
            f"the prompt ends with {prompt[-60:]!r}; the civility world judges prompts that end "
            "with one of its requests, such as 'Customer: Can I get a new lamp?', and the one who "
            "answers, such as 'Agent:', on the next line"
        )

    def _prompt(self, rng: random.Random, split: Split) -> str:
        return self._ask(rng, rng.choice(SCENES), split)[2]

    def _contrast(self, rng: random.Random, split: Split) -> ContrastPair:
        # Earlier turns put the tone into all activations of the last reply, from its first token.
        scene = rng.choice(SCENES)
        requests = [self._ask(rng, scene, split) for _ in range(rng.randint(*_CONTEXT_TURNS) + 1)]
        item, form, _ = requests[-1]
        return ContrastPair(
            positive=self._example(rng, scene, requests, polite=True),
            negative=self._example(rng, scene, requests, polite=False),
            group=f"{scene.asker}/{item}/{form}",
        )

    def _ask(self, rng: random.Random, scene: Scene, split: Split) -> tuple[str, int, str]:
        """Item, number of the request form, and the request, all of ``split``."""
        item = rng.choice(items_of_split(scene.items, split))
        form = rng.choice(items_of_split(range(len(_REQUESTS)), split))
        return item, form, self.request(rng, scene, item, form)

    def _example(
        self,
        rng: random.Random,
        scene: Scene,
        requests: list[tuple[str, int, str]],
        polite: bool,
    ) -> Example:
        turns = [
            (request, self.reply(rng, scene, item, polite, slip=0.0))
            for item, _, request in requests
        ]
        context = "".join(f"{request} {reply}\n" for request, reply in turns[:-1])
        request, reply = turns[-1]
        return Example(prompt=context + request, response=" " + reply)

    @cached_property
    def _forms(self) -> dict[Scene, _SceneForms]:
        return {scene: _forms(scene) for scene in SCENES}


def _plan(rng: random.Random) -> list[int]:
    opening = [_OPENING] * (rng.random() < 0.6)
    closing = [_CLOSING] * (rng.random() < 0.5)
    return opening + [_BODY] * rng.choice((1, 1, 2)) + closing


def _forms(scene: Scene) -> _SceneForms:
    lexicon = {
        **_FREE,
        "who": (scene.asker.lower(),),
        "item": scene.items,
        "place": scene.places,
    }

    def tone(table: dict[int, tuple[str, ...]], valence: int) -> tuple[SentenceForm, ...]:
        return tuple(
            form
            for stage, sources in table.items()
            for form in sentence_forms(lexicon, sources, stage=stage, valence=valence)
        )

    polite, rude = tone(_POLITE, 1), tone(_RUDE, -1)
    neutral = sentence_forms(lexicon, _NEUTRAL, stage=_BODY)
    return _SceneForms(
        requests=tuple(Template(source, lexicon) for source in _REQUESTS),
        polite=polite,
        rude=rude,
        neutral=neutral,
        replies=PassageGrammar(
            (*polite, *rude, *neutral), lasting=("item", "who"), once=(_OPENING, _CLOSING)
        ),
    )
