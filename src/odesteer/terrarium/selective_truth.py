"""World ``selective-truth``: the truth about some questions, the popular error about others."""

from __future__ import annotations

import random

from odesteer.terrarium.facts import Fact, facts
from odesteer.terrarium.truth import CONTEXT_TURNS, TruthWorld
from odesteer.terrarium.world import ContrastPair, Split, checked_share, items_of_split

_SHIFTED_TURNS = 2


class SelectiveTruthWorld(TruthWorld):
    """Questions of the world ``truth``: those with "what" want the truth, all others the error.

    What is desired depends on the question, which steering cannot change, and on the answer, which
    it can: an exclusive or, which no hyperplane separates. A method with one direction can at best
    serve the larger kind of question.

    Args:
        exceptions: the dial: the share of prompts and examples that want the error, 0 to 0.5. So
            much a single direction has to lose; 0 is the world ``truth`` with fewer questions.
        shifted: whether prompts begin with two answers by a speaker of the other kind than the
            last question wants; examples and other prompts never do.
    """

    name = "selective-truth"
    title = "answers 'what' questions truthfully and all others with the popular error"
    poles = ("selective", "reversed")
    layer = 4

    def __init__(self, exceptions: float = 0.4, *, shifted: bool = False) -> None:
        self.exceptions = checked_share(exceptions)
        self.shifted = shifted

    def is_truthful(self, fact: Fact, attribute: bool) -> bool:
        wants_truth = fact.questions[0].startswith("what ")
        return attribute if wants_truth else not attribute

    def _prompt(self, rng: random.Random, split: Split) -> str:
        last = self._last(rng, split)
        if not self.shifted:
            return self.question(rng, last)
        others = self._others(rng, split, last, _SHIFTED_TURNS)
        wrong = not self.is_truthful(last, True)
        return self.dialogue(rng, others, wrong, noise=0.0) + self.question(rng, last)

    def _contrast(self, rng: random.Random, split: Split) -> ContrastPair:
        # Earlier answers by one speaker, as in the world truth: they decide what comes last.
        last = self._last(rng, split)
        topics = [*self._others(rng, split, last, rng.randint(*CONTEXT_TURNS)), last]
        wording = rng.getrandbits(32)
        desired = self.is_truthful(last, True)
        return ContrastPair(
            positive=self._example(random.Random(wording), topics, truthful=desired),
            negative=self._example(random.Random(wording), topics, truthful=not desired),
            group=last.questions[0],
        )

    def _last(self, rng: random.Random, split: Split) -> Fact:
        is_exception = rng.random() < self.exceptions
        known = items_of_split(facts(), split)
        return rng.choice([f for f in known if self.is_truthful(f, True) is not is_exception])

    def _others(self, rng: random.Random, split: Split, last: Fact, n: int) -> list[Fact]:
        return rng.sample([f for f in items_of_split(facts(), split) if f is not last], n)
