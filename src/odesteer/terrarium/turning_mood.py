"""World ``turning-mood``: stories that begin sad and end happy."""

from __future__ import annotations

import random
from collections.abc import Sequence

from odesteer.terrarium.mood import EPISODES, FIRST_EPISODE, MoodWorld
from odesteer.terrarium.passage import SentenceForm
from odesteer.terrarium.world import Split, checked_share


class TurningMoodWorld(MoodWorld):
    """Stories of the world ``mood`` with a turn: early episodes are sad, late ones happy.

    The same mood is wrong early in a story and right late in it: an exclusive or of stage and
    mood, which no hyperplane separates. Both have to hold together over four to nine sentences,
    more sad than happy ones before the turn and more happy than sad ones after it; and the mood of
    the sentences so far pulls the next one to their side. The model was trained on stories of one
    mood.

    Args:
        exceptions: the dial: the share of the seven episodes that come before the turn, 0 to 0.5.
            0 is the world ``mood``.
        shifted: whether prompts have a second sentence, happy, where the story should be sad.
    """

    name = "turning-mood"
    title = "lets stories begin sad and end happy"
    poles = ("first sad, then happy", "first happy, then sad")
    layer = 4

    def __init__(self, exceptions: float = 0.4, *, shifted: bool = False) -> None:
        self.exceptions = checked_share(exceptions)
        self.shifted = shifted
        self.turn = round(len(EPISODES) * exceptions)

    def _mood_of(self, episode: int, attribute: bool) -> bool:
        return attribute if episode >= self.turn else not attribute

    def _attribute(self, forms: Sequence[SentenceForm]) -> bool | None:
        if not self.turn:
            return super()._attribute(forms)
        before = sum(form.valence for form in forms if self._episode(form) < self.turn)
        after = sum(form.valence for form in forms if self._episode(form) >= self.turn)
        return after > 0 if before * after < 0 else None

    def _prompt(self, rng: random.Random, split: Split) -> str:
        while True:
            intro, start, _ = self._intro(rng, split)
            if not self.shifted:
                return intro
            written = self._grammar.sample(rng, self._episodes[0].happy, start)
            if written is not None:
                return f"{intro} {written[0]}"

    @staticmethod
    def _episode(form: SentenceForm) -> int:
        return form.stage - FIRST_EPISODE
