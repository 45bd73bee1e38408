import random

import pytest

from odesteer.errors import InvalidInputError
from odesteer.terrarium.grammar import Template, sentences

LEXICON = {"item": ("lamp", "key", "key ring"), "day": ("Monday", "Friday")}


@pytest.mark.parametrize(
    "source",
    [
        "plain text.",
        "My {item} is [gone|lost [for good|again]] since {day}.",
        "{Item}, {item} and {item}.",
        "[|Oh, ]where is the {item}?",
    ],
)
def test_a_template_recognises_all_that_it_writes(source):
    template = Template(source, LEXICON)
    for seed in range(50):
        text, used = template.sample(random.Random(seed), {})
        assert template.match(text) == used


def test_a_slot_has_one_value_in_a_sentence():
    template = Template("{Item} or {item}.", LEXICON)
    assert template.match("Lamp or lamp.") == {"item": "lamp"}
    assert template.match("Lamp or key.") is None


def test_values_outside_the_lexicon_are_not_recognised():
    assert Template("My {item}.", LEXICON).match("My elephant.") is None


def test_a_value_that_begins_like_another_is_recognised():
    assert Template("My {item}.", LEXICON).match("My key ring.") == {"item": "key ring"}


def test_bound_slots_are_written_as_bound():
    text, used = Template("My {item}.", LEXICON).sample(random.Random(0), {"item": "lamp"})
    assert text == "My lamp."
    assert used == {"item": "lamp"}


def test_wordings_lists_every_text():
    template = Template("[a|b [c|d]] e", {})
    assert template.wordings() == ("a e", "b c e", "b d e")


@pytest.mark.parametrize("source", ["[open", "closed]", "a | b", "{", "{two words}", "{nobody}"])
def test_malformed_templates_are_refused_by_name(source):
    with pytest.raises(InvalidInputError, match="template"):
        Template(source, LEXICON)


def test_sentences_are_cut_after_their_marks():
    assert sentences("One. Two? Three!") == ["One.", "Two?", "Three!"]
    assert sentences("") == []
