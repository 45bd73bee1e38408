"""Incremental detokenization with stop strings."""

from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from odesteer.serving.engine.detokenizer import IncrementalDetokenizer
from odesteer.serving.engine.output import GeneratedToken

TOKENIZER = tiny_models.tokenizer()


def decoded(text: str, stops: list[str]) -> tuple[list[str], bool]:
    """The pieces sent for a text that comes token by token, and whether a stop string ended it."""
    detokenizer = IncrementalDetokenizer(TOKENIZER, [1], stops)
    out: list[str] = []
    for token_id in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        tokens, stopped = detokenizer.push(token_id, GeneratedToken(""))
        out += [token.text for token in tokens]
        if stopped:
            return out, True
    tokens, stopped = detokenizer.end()
    return out + [token.text for token in tokens], stopped


texts = st.text("abé😀 \n", max_size=20)


@given(texts, st.lists(st.text("abé😀 \n", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    out, stopped = decoded(text, stops)
    starts = [text.find(stop) for stop in stops if stop in text]
    # Of two stops the one that is complete first ends the text.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert stopped == bool(starts)
    if not starts:
        assert "".join(out) == text
    else:
        assert "".join(out) in {text[:start] for start in starts}
        assert len("".join(out)) <= min(ends)


def test_only_possible_stop_strings_are_withheld() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZER, [1], ["abc"])
    sent = []
    for letter in "xababc":
        (token_id,) = TOKENIZER(letter, add_special_tokens=False)["input_ids"]
        tokens, stopped = detokenizer.push(token_id, GeneratedToken(""))
        sent.append("".join(token.text for token in tokens))
    assert sent == ["x", "", "", "ab", "", ""]
    assert stopped


def test_half_a_character_belongs_to_the_last_token() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZER, [1], [])
    ids = TOKENIZER("aé", add_special_tokens=False)["input_ids"][:-1]
    tokens = [
        token
        for i, token_id in enumerate(ids, 1)
        for token in detokenizer.push(token_id, GeneratedToken(""), is_last=i == len(ids))[0]
    ]
    assert [token.text for token in tokens] == ["a", "\ufffd"]
    assert detokenizer.end() == ([], False)
