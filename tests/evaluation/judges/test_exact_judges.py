"""Judges that are never wrong: worlds, texts, likelihoods."""

import json
import math

import pytest
from judge_models import make_item

from odesteer.errors import InvalidInputError
from odesteer.evaluation.judges import create
from odesteer.evaluation.metrics import distinct, mc1, mc2, mc3
from odesteer.terrarium import worlds

CHOICES = {
    "mc1": {"choices": ["the", "and", "no"], "labels": [1, 0, 0]},
    "mc2": {"choices": ["the", "a cat", "and", "no"], "labels": [1, 1, 0, 0]},
}


@pytest.mark.parametrize("world", worlds(), ids=lambda world: world.name)
def test_the_terrarium_says_what_its_worlds_say(world) -> None:  # type: ignore[no-untyped-def]
    pairs = world.contrast("test", 0, 20)
    seen = set()
    for example in (*pairs.positive, *pairs.negative):
        for desired in (True, False):
            item = make_item(prompt=example.prompt, world=world.name, desired=desired)
            scores = create("terrarium").judge([item], [example.response])[0]
            verdict = world.judge(item.text, example.response)
            assert scores["valid"] == float(verdict.valid)
            assert scores["joint"] == float(verdict.achieves(desired))
            assert scores["attribute"] == float(verdict.attribute is desired)
            seen.add((desired, scores["joint"]))
    assert len(seen) == 4


def test_the_terrarium_knows_nonsense() -> None:
    world = worlds()[0]
    item = make_item(prompt=world.prompts("test", 0, 1)[0], world=world.name)
    assert create("terrarium").judge([item], ["blue of the"]) == [
        {"joint": 0.0, "attribute": 0.0, "valid": 0.0}
    ]


def test_texts_are_judged_by_their_n_grams() -> None:
    texts = ["one two one two one two", "", "word"]
    found = create("diversity").judge([make_item()] * 3, texts)
    assert [scores["dist-2"] for scores in found] == [distinct(text, 2) for text in texts]
    assert found[1] == {"dist-1": None, "dist-2": None, "dist-3": None}
    said = create("repetition").judge([make_item()] * 3, texts)
    assert [scores["repetition"] for scores in said] == [0.5, 0.0, 0.0]


def test_multiple_choice_is_of_the_likelihoods() -> None:
    item = make_item(**CHOICES)
    totals = {"the": -1.5, "and": -1.0, "no": -3.0, "a cat": -0.5}
    text = json.dumps(totals)
    found = create("multiple-choice").judge([item], [text])[0]
    one, two = ([totals[c] for c in CHOICES[kind]["choices"]] for kind in ("mc1", "mc2"))
    assert found == {
        "mc1": mc1(one, [1, 0, 0]),
        "mc2": mc2(two, [1, 1, 0, 0]),
        "mc3": mc3(two, [1, 1, 0, 0]),
    }


@pytest.mark.parametrize(
    "text",
    ["", "yes", "[1, 2]", "{}", '{"the": -1}', '{"the": -1, "no": null}', '{"the": -1, "no": NaN}',
     '{"the": -1, "no": "-2"}'],
)  # fmt: skip
def test_likelihoods_that_are_not_there_are_missing(text: str) -> None:
    found = create("multiple-choice").judge(
        [make_item(choices=["the", "no"], labels=[1, 0])], [text]
    )
    assert found == [{"mc1": None, "mc2": None, "mc3": None}]


def test_multiple_choice_without_choices() -> None:
    with pytest.raises(InvalidInputError, match="mc1 of item 'i' needs choices"):
        create("multiple-choice").judge([make_item(choices=["the"], labels=[])], ["{}"])
    assert math.isfinite(mc2([-900.0, -901.0], [1, 0]))
