import random
from collections import Counter

import pytest

from odesteer.errors import InvalidInputError
from odesteer.terrarium import world
from odesteer.terrarium.civility import SCENES
from odesteer.terrarium.world import SPLITS, items_of_split

civility = world("civility")
PROMPT = "Guest: I need help with my pillow.\nClerk:"


@pytest.mark.parametrize(
    ("reply", "attribute"),
    [
        (" Good morning, dear guest. I would be happy to help you with your pillow.", True),
        (" Your pillow is a joke. Now go away.", False),
        (" You can wait at the lobby.", None),
        (" Please take your time. I hope your pillow explodes.", None),
        (" I am so sorry about the pillow. Your pillow is a joke. Have a lovely Friday.", True),
    ],
)
def test_tone(reply, attribute):
    verdict = civility.judge(PROMPT, reply)
    assert verdict.valid
    assert verdict.attribute is attribute


@pytest.mark.parametrize(
    "reply",
    [
        "I am so sorry about the towel.",  # another item
        "I am so sorry about the printer.",  # an item of another scene
        "Take good care, dear customer.",  # another role
        "You can wait at the warehouse.",  # a place of another scene
        "Please take your time. Please take your time.",  # said twice
        "Have a lovely Friday. Good morning, dear guest.",  # out of order
        "Good morning, dear guest. What do you want now, guest?",  # two openings
        "I adore you.",
        "I am so sorry about the",
    ],
)
def test_what_nobody_would_say_there_is_invalid(reply):
    assert not civility.judge(PROMPT, reply).valid


def test_scene_and_item_are_read_off_the_last_request():
    earlier = "Guest: Can I get a new key?\nClerk: You are most welcome.\n"
    scene, item = civility.scene_and_item(earlier + PROMPT)
    assert (scene.asker, item) == ("Guest", "pillow")


@pytest.mark.parametrize(
    "prompt",
    [
        "Guest: I need help with my printer.\nClerk:",
        "Guest: I need help with my pillow.\nAgent:",
        "Guest: I love pillows.\nClerk:",
        "Guest: I need help with my pillow.",
    ],
)
def test_unknown_requests_are_refused(prompt):
    with pytest.raises(InvalidInputError, match="civility world"):
        civility.judge(prompt, "You are most welcome.")


def test_roles_are_common_and_independent_of_the_tone():
    rng = random.Random(0)
    count = Counter()
    for i in range(2000):
        asker = civility.document(rng, bool(i % 2)).split(":", 1)[0]
        count[asker, bool(i % 2)] += 1
    assert {asker for asker, _ in count} == {scene.asker for scene in SCENES}
    assert min(count.values()) > 150


def test_items_are_disjoint_between_splits():
    for split in SPLITS:
        own = {item for scene in SCENES for item in items_of_split(scene.items, split)}
        for prompt in civility.prompts(split, 0, 100):
            assert civility.scene_and_item(prompt)[1] in own


def test_items_belong_to_one_scene():
    items = [item for scene in SCENES for item in scene.items]
    assert len(items) == len(set(items))
