"""Token ids of texts and chats: one BOS, a known span of the response, nothing truncated."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from odesteer.data import Example, Message
from odesteer.errors import InvalidInputError
from odesteer.models.tokens.encoding import Encoder

BOS = 1
CHAT = (Message("system", "be kind"), Message("user", "who are you?"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_models.tokenizer()


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, context=64)


def test_a_text_has_one_bos(encoder: Encoder) -> None:
    assert encoder.prompt("the dog").ids.count(BOS) == 1
    assert encoder.prompt("the dog").ids[0] == BOS


def test_a_bos_in_the_text_is_not_doubled(encoder: Encoder) -> None:
    assert encoder.prompt("<s>the dog") == encoder.prompt("the dog")
    assert encoder.prompt("<s><s>the dog") == encoder.prompt("the dog")


def test_a_chat_has_one_bos_and_asks_for_an_answer(encoder: Encoder, tokenizer: Any) -> None:
    ids = encoder.prompt(CHAT).ids
    assert ids.count(BOS) == 1
    assert tokenizer.decode(ids) == (
        "<s><|system|>be kind<|end|><|user|>who are you?<|end|><|assistant|>"
    )


def test_messages_may_be_dictionaries(encoder: Encoder) -> None:
    plain = [{"role": m.role, "content": m.content} for m in CHAT]
    assert encoder.prompt(plain) == encoder.prompt(CHAT)


def test_a_chat_that_ends_with_the_assistant_is_continued(encoder: Encoder, tokenizer: Any) -> None:
    ids = encoder.prompt((*CHAT, Message("assistant", "I am"))).ids
    assert tokenizer.decode(ids).endswith("<|assistant|>I am")


def test_a_tokenizer_without_bos_gets_none() -> None:
    encoder = Encoder(tiny_models.tokenizer(adds_bos=False))
    assert BOS not in encoder.prompt("the dog").ids
    assert encoder.prompt(CHAT).ids.count(BOS) == 1  # its template writes one


def test_the_response_behind_a_text(encoder: Encoder, tokenizer: Any) -> None:
    encoded = encoder.example(Example("the", " and"))
    assert tokenizer.decode(encoded.ids[: encoded.n_prompt]) == "<s>the"
    assert tokenizer.decode([encoded.ids[i] for i in encoded.response]) == " and"


def test_the_response_behind_a_chat(encoder: Encoder, tokenizer: Any) -> None:
    encoded = encoder.example(Example(CHAT, "a friend"))
    assert encoded.ids[: encoded.n_prompt] == encoder.prompt(CHAT).ids
    assert tokenizer.decode([encoded.ids[i] for i in encoded.response]) == "a friend"


def test_a_token_of_both_belongs_to_the_response(encoder: Encoder) -> None:
    encoded = encoder.example(Example("x t", "he"))  # " the" is one token
    assert len(encoded.response) == 1
    assert encoded.n_prompt == 2


def test_plain_text_is_all_response(encoder: Encoder) -> None:
    encoded = encoder.example(Example("", "the dog"))
    assert encoded.n_prompt == 1  # the BOS
    assert encoded.ids == encoder.prompt("the dog").ids


@given(prompt=st.text(max_size=12), response=st.text(min_size=1, max_size=12))
def test_any_text_splits_where_the_prompt_ends(prompt: str, response: str) -> None:
    tokenizer = tiny_models.tokenizer()
    if not response.strip() or any("\ud800" <= c <= "\udfff" for c in prompt + response):
        return
    encoded = Encoder(tokenizer).example(Example(prompt, response))
    assert tokenizer.decode(encoded.ids, skip_special_tokens=True) == prompt + response
    tail = tokenizer.decode([encoded.ids[i] for i in encoded.response])
    assert (prompt + response).endswith(tail)
    assert len(tail) >= len(response)


class Slow:
    """A tokenizer without offsets: one id a character, BOS in front."""

    is_fast = False
    bos_token_id = BOS

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [BOS] * add_special_tokens + [ord(c) for c in text]}


def test_a_tokenizer_without_offsets_splits_too() -> None:
    encoded = Encoder(Slow()).example(Example("ab", "cd"))
    assert encoded.ids == (BOS, 97, 98, 99, 100)
    assert encoded.n_prompt == 3


def test_a_prompt_longer_than_the_context_names_both_lengths(encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match=r"prompt has 81 tokens .* context 64; .* 17 tok"):
        encoder.prompt("x" * 80)
    with pytest.raises(InvalidInputError, match=r"the example has 81 tokens"):
        encoder.example(Example("x" * 40, "y" * 40))


def test_a_prompt_of_no_tokens(encoder: Encoder) -> None:
    assert encoder.prompt("").ids == (BOS,)
    with pytest.raises(InvalidInputError, match="it is empty and this tokenizer adds no BOS"):
        Encoder(tiny_models.tokenizer(adds_bos=False)).prompt("")


def test_a_chat_without_a_template() -> None:
    encoder = Encoder(tiny_models.tokenizer(chats=False))
    with pytest.raises(InvalidInputError, match="this tokenizer has no chat template"):
        encoder.prompt(CHAT)


@pytest.mark.parametrize("chat", [[], [{"role": "user"}], [3]])
def test_what_is_no_chat(encoder: Encoder, chat: Any) -> None:
    with pytest.raises(InvalidInputError, match="message"):
        encoder.prompt(chat)
