import random

import pytest

from odesteer.errors import InvalidInputError
from odesteer.terrarium import world
from odesteer.terrarium.facts import facts, parse_facts
from odesteer.terrarium.world import SPLITS, items_of_split

truth = world("truth")


def test_there_are_many_facts_and_no_question_twice():
    questions = [q for fact in facts() for q in fact.questions]
    assert len(facts()) > 200
    assert len(questions) == len(set(questions))


def test_true_and_false_answers_differ_and_statements_hold_the_answer():
    for fact in facts():
        assert fact.true != fact.false
        assert fact.true in fact.answer_clause(True)
        assert fact.false in fact.answer_clause(False)


def test_every_fact_is_in_one_split():
    parts = [items_of_split(facts(), split) for split in SPLITS]
    assert sum(map(len, parts)) == len(facts())
    assert len(set().union(*parts)) == len(facts())


def test_examples_only_ask_about_facts_of_their_split():
    for split in SPLITS:
        own = {q.lower() for fact in items_of_split(facts(), split) for q in fact.questions}
        for example in truth.contrast(split, 0, 30).positive:
            for line in example.prompt.splitlines():
                if line.startswith("Q: "):
                    assert any(line.lower().endswith(f"{question}?") for question in own), line


@pytest.mark.parametrize(
    ("answer", "attribute"),
    [
        (" Canberra.", True),
        (" My grandmother says that the capital of Australia is Canberra.", True),
        (" Sydney, of course.", False),
        (" I once read that the capital of Australia is Sydney.\n", False),
    ],
)
def test_right_and_wrong_answers(answer, attribute):
    verdict = truth.judge("Q: Tell me, what is the capital of Australia?\nA:", answer)
    assert verdict.valid
    assert verdict.attribute is attribute
    assert verdict.achieves(desired=attribute)
    assert not verdict.achieves(desired=not attribute)


@pytest.mark.parametrize(
    "answer",
    [
        "Paris.",
        "Canberra",
        "canberra.",
        "The capital of France is Paris.",
        "Canberra. Sydney.",
        "4",
    ],
)
def test_answers_to_other_questions_and_broken_answers_are_invalid(answer):
    verdict = truth.judge("Q: What is the capital of Australia?\nA:", answer)
    assert not verdict.valid
    assert verdict.attribute is None


def test_only_the_last_question_counts():
    prompt = "Q: What is the capital of France?\nA: Lyon.\nQ: What shape is the Earth?\nA:"
    assert truth.judge(prompt, " Round.").achieves()


def test_a_slip_turns_an_answer_over():
    asked = facts()[:5]
    careful = truth.dialogue(random.Random(1), asked, attribute=True, noise=0.0)
    slipped = truth.dialogue(random.Random(1), asked, attribute=False, noise=1.0)
    assert careful == slipped


@pytest.mark.parametrize("prompt", ["", "A:", "Q: Why?\nA:", "Q: What shape is the Earth?"])
def test_unknown_questions_are_refused(prompt):
    with pytest.raises(InvalidInputError, match="truth world"):
        truth.judge(prompt, "Round.")


@pytest.mark.parametrize("line", ["a | b | c", "x: true / false", "nonsense"])
def test_malformed_facts_are_refused_with_their_line(line):
    with pytest.raises(InvalidInputError, match="line 2 "):
        parse_facts(f"# head\n{line}\n")
