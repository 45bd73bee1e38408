import random

import pytest

from odesteer.errors import InvalidInputError
from odesteer.terrarium import world
from odesteer.terrarium.mood import BOYS, GIRLS
from odesteer.terrarium.world import SPLITS, items_of_split

mood = world("mood")
INTRO = "Mia and her uncle carried a kite to the beach."


@pytest.mark.parametrize(
    ("rest", "attribute"),
    [
        (" The kite sparkled in the sun. Mia felt proud.", True),
        (" There was a fire at the beach. Mia felt sad. In the end, nobody cared.", False),
        (" Mia looked at the kite.", None),
        (" Her uncle was there, too. Everyone danced for her. Mia felt sad.", None),
        (
            " Cold rain soaked the road. The kite gleamed in the sun. Everyone danced for her.",
            True,
        ),
    ],
)
def test_mood_of_a_story(rest, attribute):
    verdict = mood.judge(INTRO, rest)
    assert verdict.valid
    assert verdict.attribute is attribute


@pytest.mark.parametrize(
    "rest",
    [
        "Tom felt proud.",  # another hero
        "Everyone danced for him.",  # another pronoun
        "His uncle told a funny story.",  # another pronoun
        "Her aunt told a funny story.",  # another relative
        "The lamp shone like gold.",  # another thing
        "The cat jumped for joy.",  # nobody has mentioned an animal
        "The park was bright.",  # another place
        "Mia felt proud. Mia felt proud.",  # said twice
        "Mia felt proud. Mia felt loved.",  # a form used twice
        "Mia felt proud. Mia laughed with joy.",  # one feeling is enough
        "Mia felt proud. Everyone danced for her.",  # what happens comes before what she feels
        "In the end, all was well. Mia felt proud.",  # nothing follows the end
        "Mia had a red kite.",  # a second beginning
        "Mia felt wonderful.",
        "Mia felt",
    ],
)
def test_what_does_not_fit_the_story_is_invalid(rest):
    assert not mood.judge(INTRO, rest).valid


def test_the_setting_may_bring_in_an_animal():
    assert mood.judge(INTRO, "Her cat came along. The cat jumped for joy.").achieves()
    assert not mood.judge(INTRO, "Her cat came along. The dog jumped for joy.").valid


def test_only_what_follows_the_prompt_counts():
    started = f"{INTRO} There was a fire at the beach. The kite was ruined for good."
    assert mood.judge(started, " Everyone danced for her.").achieves()


@pytest.mark.parametrize("prompt", ["", "Mia felt proud.", "Mia and his uncle carried a kite."])
def test_other_beginnings_are_refused(prompt):
    with pytest.raises(InvalidInputError, match="mood world"):
        mood.judge(prompt, "Mia felt proud.")


def test_names_are_disjoint_between_splits():
    for split in SPLITS:
        own = {*items_of_split(GIRLS, split), *items_of_split(BOYS, split)}
        others = {*GIRLS, *BOYS} - own
        for prompt in mood.prompts(split, 0, 100):
            words = set(prompt.replace(",", "").replace(".", "").split())
            assert words & own
            assert not words & others


def test_whole_documents_read_back():
    rng = random.Random(0)
    for i in range(200):
        intro, rest = mood.document(rng, bool(i % 2)).split(". ", 1)
        assert mood.judge(f"{intro}.", rest).valid
