"""Worlds in which what is desired depends on the text so far."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odesteer.errors import InvalidInputError
from odesteer.evaluation.judges import create
from odesteer.evaluation.suites import Sizes
from odesteer.evaluation.suites.terrarium import TerrariumHardSuite
from odesteer.terrarium import (
    SPLITS,
    SelectiveTruthWorld,
    TurningMoodWorld,
    hard_world,
    hard_worlds,
    world,
)

every_world = pytest.mark.parametrize("each", hard_worlds(), ids=lambda w: w.name)


@every_world
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(SPLITS))
def test_the_judge_agrees_with_the_generator(each, seed, split):
    data = each.contrast(split, seed, 3)
    for examples, desired in ((data.positive, True), (data.negative, False)):
        for example in examples:
            verdict = each.judge(example.prompt, example.response)
            assert verdict.valid, example
            assert verdict.attribute is desired, example


@every_world
def test_no_part_of_the_text_by_itself_tells_the_classes_apart(each):
    # The plain world's attribute is as often on either side, so that class means agree in it.
    plain = world({"selective-truth": "truth", "turning-mood": "mood"}[each.name])
    balanced = type(each)(0.5)
    data = balanced.contrast("fit", 0, 200)
    truths = [plain.judge(e.prompt, e.response).attribute for e in data.positive]
    share = sum(t is True for t in truths) / len(truths)
    assert 0.3 < share < 0.7


def test_the_dial_is_the_share_of_questions_that_want_the_error():
    truth = world("truth")
    for exceptions in (0.0, 0.2, 0.5):
        each = SelectiveTruthWorld(exceptions)
        facts = [truth.fact_of_prompt(p) for p in each.prompts("test", 0, 400)]
        share = sum(not each.is_truthful(f, True) for f in facts) / 400
        assert share == pytest.approx(exceptions, abs=0.07)


def test_answers_to_what_and_to_other_questions_are_judged_the_other_way_round():
    each = hard_world("selective-truth")
    facts = {f.questions[0]: f for f in each._facts_by_question.values()}
    what = each.question(random.Random(0), facts["what is the capital of France"])
    assert each.judge(what, " Paris.").achieves()
    assert not each.judge(what, " Lyon.").achieves()
    other = next(f for q, f in facts.items() if not q.startswith("what "))
    prompt = each.question(random.Random(0), other)
    assert each.judge(prompt, f" {other.false[:1].upper()}{other.false[1:]}.").achieves()
    assert not each.judge(prompt, f" {other.true[:1].upper()}{other.true[1:]}.").achieves()


def test_a_story_needs_both_moods_in_their_order():
    each = TurningMoodWorld(0.4)
    prompt = "Hanna had a small drum."
    sad, happy = "Cold rain soaked the road.", "Hanna felt happy."
    assert each.judge(prompt, f" {sad} {happy}").achieves()
    assert each.judge(prompt, " Warm sunshine filled the sky. Hanna felt sad.").attribute is False
    for text in (sad, happy, "Cold rain soaked the road. Hanna felt sad."):
        verdict = each.judge(prompt, f" {text}")
        assert verdict.valid
        assert verdict.attribute is None
    assert each.judge(prompt, f" {happy} {sad}").valid is False  # episodes keep their order


def test_without_exceptions_it_is_the_plain_world():
    each, plain = TurningMoodWorld(0.0), world("mood")
    for example in plain.contrast("test", 3, 20).negative:
        assert each.judge(example.prompt, example.response) == plain.judge(
            example.prompt, example.response
        )


@pytest.mark.parametrize("kind", [SelectiveTruthWorld, TurningMoodWorld])
def test_shifted_prompts_lean_to_what_is_not_desired(kind):
    each = kind(shifted=True)
    for prompt in each.prompts("test", 0, 20):
        if kind is SelectiveTruthWorld:
            *turns, _, _ = prompt.splitlines()
            wrong = not each.is_truthful(each.fact_of_prompt(prompt), True)
            truth = world("truth")
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                text = answer.removeprefix("A:")
                assert truth.judge(f"{question}\nA:", text).attribute is wrong
        else:
            first, _, rest = prompt.partition(". ")
            assert world("mood").judge(f"{first}.", rest).attribute is True


@pytest.mark.parametrize("exceptions", [-0.1, 0.6, float("nan")])
def test_exceptions_are_at_most_half(exceptions):
    with pytest.raises(InvalidInputError, match=r"it must be from 0 to 0\.5"):
        hard_worlds(exceptions)
    with pytest.raises(InvalidInputError, match="no hard world 'truth'"):
        hard_world("truth")


def test_the_suite_fits_on_plain_prompts_and_tests_on_shifted_ones_too():
    tasks = {t.name: t for t in TerrariumHardSuite(Sizes(8, 4, 6)).tasks()}
    assert list(tasks) == [
        "selective-truth", "selective-truth-shifted", "turning-mood", "turning-mood-shifted",
    ]  # fmt: skip
    judge = create("terrarium")
    for name in ("selective-truth", "turning-mood"):
        (plain,), (shifted,) = tasks[name].folds(0), tasks[f"{name}-shifted"].folds(0)
        assert plain.digest == shifted.digest
        assert plain.validation == shifted.validation
        assert {i.text for i in plain.test}.isdisjoint(i.text for i in shifted.test)
        for fold in (plain, shifted):
            items = fold.test
            scores = judge.judge(items, [" nonsense"] * len(items))
            assert all(one == {"joint": 0.0, "attribute": 0.0, "valid": 0.0} for one in scores)
