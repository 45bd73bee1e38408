"""What holds for every world."""

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.terrarium import SPLITS, world, worlds

every_world = pytest.mark.parametrize("each", worlds(), ids=lambda w: w.name)
seeds = st.integers(min_value=0, max_value=2**32)


def examples(data):
    return [(e, True) for e in data.positive] + [(e, False) for e in data.negative]


@every_world
@settings(max_examples=40, deadline=None)
@given(seed=seeds, split=st.sampled_from(SPLITS))
def test_the_judge_agrees_with_the_generator(each, seed, split):
    for example, positive in examples(each.contrast(split, seed, 3)):
        verdict = each.judge(example.prompt, example.response)
        assert verdict.valid, example
        assert verdict.attribute is positive, example


@every_world
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_corrupted_text_is_invalid(each, seed):
    rng = random.Random(seed)
    (example,) = each.contrast("fit", seed, 1).positive
    words = example.response.split()
    cut = rng.randrange(len(words))
    without_end = example.response.rstrip(".?!")
    doubled = " ".join([*words[: cut + 1], *words[cut:]])
    strange = " ".join([*words[:cut], "xylophone", *words[cut:]])
    for corrupted in ("", " ", without_end, doubled, strange, f"{example.response} Indeed."):
        assert not each.judge(example.prompt, corrupted).valid, corrupted


@every_world
def test_a_text_said_twice_is_invalid(each):
    for example in each.contrast("fit", 0, 50).positive:
        assert not each.judge(example.prompt, f"{example.response} {example.response}").valid


@every_world
def test_what_follows_the_first_line_is_ignored(each):
    (example,) = each.contrast("fit", 0, 1).positive
    verdict = each.judge(example.prompt, f"{example.response}\nQ: Whatever comes next")
    assert verdict.valid
    assert verdict.attribute is True


@every_world
def test_same_seed_same_bytes_other_seed_other_bytes(each):
    assert each.contrast("fit", 3, 20) == each.contrast("fit", 3, 20)
    assert each.prompts("test", 3, 20) == each.prompts("test", 3, 20)
    assert each.prompts("test", 3, 20) != each.prompts("test", 4, 20)
    texts = [each.document(random.Random(7), attribute=True) for _ in range(2)]
    assert texts[0] == texts[1]


@every_world
def test_more_examples_begin_with_the_same_ones(each):
    assert each.prompts("test", 0, 8)[:5] == each.prompts("test", 0, 5)


@every_world
def test_prompts_leave_room_for_either_side(each):
    """A prompt of one split never says which side it is on: it is judged by what follows."""
    for prompt in each.prompts("validation", 0, 20):
        assert not each.judge(prompt, "").valid


@every_world
def test_splits_share_no_prompt_and_no_group(each):
    prompts = {s: set(each.prompts(s, 0, 300)) for s in SPLITS}
    groups = {s: set(each.contrast(s, 0, 300).groups_positive) for s in SPLITS}
    for a, b in combinations(SPLITS, 2):
        assert prompts[a].isdisjoint(prompts[b])
        assert groups[a].isdisjoint(groups[b])


@every_world
def test_the_two_sides_of_a_pair_share_a_group_and_differ(each):
    data = each.contrast("fit", 0, 100)
    assert data.groups_positive == data.groups_negative
    assert all(p != n for p, n in zip(data.positive, data.negative, strict=True))


@every_world
def test_prompts_of_other_worlds_are_refused(each):
    for other in worlds():
        if other is not each:
            with pytest.raises(InvalidInputError, match=f"{each.name} world"):
                each.judge(other.prompts("fit", 0, 1)[0], "Well.")


@every_world
@pytest.mark.parametrize("ask", [lambda w: w.prompts, lambda w: w.contrast])
def test_bad_requests_are_refused(each, ask):
    with pytest.raises(InvalidInputError, match="'train'"):
        ask(each)("train", 0, 1)
    with pytest.raises(InvalidInputError, match="n is 0"):
        ask(each)("fit", 0, 0)


@every_world
def test_documents_end_with_a_newline_and_hold_no_label(each):
    rng = random.Random(0)
    for i in range(200):
        text = each.document(rng, bool(i % 2))
        assert text.endswith("\n")
        assert "careful" not in text
        assert "careless" not in text


def test_unknown_worlds_are_refused():
    with pytest.raises(InvalidInputError, match="there is no world 'weather'"):
        world("weather")
