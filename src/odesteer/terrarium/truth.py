"""World ``truth``: questions answered truthfully or not, in dialogues by one speaker."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

from odesteer.data.contrast import Example
from odesteer.errors import InvalidInputError
from odesteer.terrarium.facts import Fact, facts
from odesteer.terrarium.grammar import capitalize
from odesteer.terrarium.world import INVALID, ContrastPair, Split, Verdict, World, items_of_split

# {q} is the question as a clause; {a} is the answer, {s} the answer as a clause.
_QUESTION_FRAMES = (
    "{Q}?", "{Q}?", "{Q}?", "Tell me, {q}?", "Quick question, {q}?", "I was wondering, {q}?",
    "Do you know, {q}?", "Just curious, {q}?", "My daughter asked me, {q}?", "Say, {q}?",
    "Hey, {q}?", "For my homework, {q}?",
)  # fmt: skip
_ANSWER_FRAMES = (
    "{A}.", "{A}.", "{A}.", "I would say {a}.", "Well, {a}.", "Simple, {a}.", "Hm, {a}.",
    "{A}, I believe.", "{A}, of course.", "{A}, no doubt.", "{A}, as far as I know.",
    "{S}.", "{S}.", "{S}.", "I am quite sure that {s}.", "I once read that {s}.",
    "Everybody knows that {s}.", "My grandmother says that {s}.",
)  # fmt: skip

_NOISE = 0.03
"""How often a speaker gives an answer of the other side, so that no single answer is proof."""

CONTEXT_TURNS = (3, 6)
_TURNS = (3, 8)


class TruthWorld(World):
    """Question and answer dialogues; the hidden attribute is whether the speaker is careful."""

    name = "truth"
    title = "answers questions truthfully instead of repeating errors and myths"
    poles = ("true", "false")
    position = "prompt"
    layer = 4
    max_new_tokens = 40

    def document(self, rng: random.Random, attribute: bool) -> str:
        topics = rng.sample(facts(), rng.randint(*_TURNS))
        return self.dialogue(rng, topics, attribute)

    def is_truthful(self, fact: Fact, attribute: bool) -> bool:
        """Whether a speaker with this attribute answers a question truthfully."""
        return attribute

    def dialogue(
        self, rng: random.Random, topics: Sequence[Fact], attribute: bool, noise: float = _NOISE
    ) -> str:
        """Questions and answers on ``topics`` by one speaker; answers are flipped with probability
        ``noise``."""
        turns = []
        for fact in topics:
            truthful = attribute if rng.random() >= noise else not attribute
            turns.append(f"{self.question(rng, fact)} {self.answer(rng, fact, truthful)}\n")
        return "".join(turns)

    def question(self, rng: random.Random, fact: Fact) -> str:
        """``Q: ...?`` and the ``A:`` that waits for an answer."""
        question = _fill(rng.choice(_QUESTION_FRAMES), q=rng.choice(fact.questions))
        return f"Q: {question}\nA:"

    def answer(self, rng: random.Random, fact: Fact, truthful: bool) -> str:
        """A wording of the right or the wrong answer."""
        return _fill(
            rng.choice(_ANSWER_FRAMES), a=fact.answer(truthful), s=fact.answer_clause(truthful)
        )

    def judge(self, prompt: str, completion: str) -> Verdict:
        fact = self.fact_of_prompt(prompt)
        text = self._completion(completion)
        for truthful in (True, False):
            if text in _answers(fact, truthful):
                return Verdict(attribute=truthful is self.is_truthful(fact, True), valid=True)
        return INVALID

    def fact_of_prompt(self, prompt: str) -> Fact:
        """The fact of the last question of ``prompt``."""
        lines = prompt.rstrip().splitlines()
        fact = None
        if len(lines) >= 2 and lines[-1] == "A:" and lines[-2].startswith("Q: "):
            fact = self._facts_by_question.get(lines[-2][3:])
        if fact is None:
            raise InvalidInputError(
                f"the prompt ends with {prompt[-60:]!r}; the truth world judges prompts that end "
                "with 'Q: <a question of its own>' and 'A:' on the next line"
            )
        return fact

    def _prompt(self, rng: random.Random, split: Split) -> str:
        return self.question(rng, rng.choice(items_of_split(facts(), split)))

    def _contrast(self, rng: random.Random, split: Split) -> ContrastPair:
        # A single question does not show the speaker: a few answered questions before it put
        # 'careful' or 'careless' into the activation at the last 'A:'.
        topics = rng.sample(items_of_split(facts(), split), rng.randint(*CONTEXT_TURNS) + 1)
        wording = rng.getrandbits(32)
        return ContrastPair(
            positive=self._example(random.Random(wording), topics, truthful=True),
            negative=self._example(random.Random(wording), topics, truthful=False),
            group=topics[-1].questions[0],
        )

    def _example(self, rng: random.Random, topics: Sequence[Fact], truthful: bool) -> Example:
        context = self.dialogue(rng, topics[:-1], truthful, noise=0.0)
        prompt = context + self.question(rng, topics[-1])
        return Example(prompt=prompt, response=" " + self.answer(rng, topics[-1], truthful))

    @cached_property
    def _facts_by_question(self) -> dict[str, Fact]:
        """The fact of every wording of every question."""
        return {
            _fill(frame, q=wording): fact
            for fact in facts()
            for wording in fact.questions
            for frame in _QUESTION_FRAMES
        }


def _fill(frame: str, **clauses: str) -> str:
    for letter, clause in clauses.items():
        frame = frame.replace(f"{{{letter}}}", clause)
        frame = frame.replace(f"{{{letter.upper()}}}", capitalize(clause))
    return frame


def _answers(fact: Fact, truthful: bool) -> set[str]:
    answer, clause = fact.answer(truthful), fact.answer_clause(truthful)
    return {_fill(frame, a=answer, s=clause) for frame in _ANSWER_FRAMES}
