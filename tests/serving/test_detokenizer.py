"""What may be handed out of a text while it grows."""

from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from odesteer.serving.engine.detokenizer import IncrementalDetokenizer
from odesteer.serving.engine.output import Token

TOKENIZER = tiny_models.tokenizer()


def grown(text: str, stops: list[str]) -> tuple[list[str], bool]:
    """What is handed out of a text that comes token by token, and whether a stop ended it."""
    growing = IncrementalDetokenizer(TOKENIZER, [1], stops)
    out: list[str] = []
    for number in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        tokens, stopped = growing.push(number, Token(""))
        out += [token.text for token in tokens]
        if stopped:
            return out, True
    tokens, stopped = growing.end()
    return out + [token.text for token in tokens], stopped


texts = st.text("abé😀 \n", max_size=20)


@given(texts, st.lists(st.text("abé😀 \n", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    out, stopped = grown(text, stops)
    starts = [text.find(stop) for stop in stops if stop in text]
    # Of two stops the one that is complete first ends the text.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert stopped == bool(starts)
    if not starts:
        assert "".join(out) == text
    else:
        assert "".join(out) in {text[:start] for start in starts}
        assert len("".join(out)) <= min(ends)


def test_nothing_is_held_back_without_need() -> None:
    growing = IncrementalDetokenizer(TOKENIZER, [1], ["abc"])
    handed = []
    for letter in "xababc":
        (number,) = TOKENIZER(letter, add_special_tokens=False)["input_ids"]
        tokens, stopped = growing.push(number, Token(""))
        handed.append("".join(token.text for token in tokens))
    assert handed == ["x", "", "", "ab", "", ""]
    assert stopped


def test_half_a_character_belongs_to_the_last_token() -> None:
    growing = IncrementalDetokenizer(TOKENIZER, [1], [])
    numbers = TOKENIZER("aé", add_special_tokens=False)["input_ids"][:-1]
    tokens = [
        token
        for i, number in enumerate(numbers, 1)
        for token in growing.push(number, Token(""), is_last=i == len(numbers))[0]
    ]
    assert [token.text for token in tokens] == ["a", "\ufffd"]
    assert growing.end() == ([], False)
