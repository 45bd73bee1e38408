"""Chat templates: arguments given once, answers rendered as turns, objections, thinking blocks."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from odesteer.artifact import Provenance, Steerer, load
from odesteer.data import ContrastData, Example, Message
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA
from odesteer.models import ProvenanceWarning, SteeredModel
from odesteer.models.tokens.encoding import Encoder

# As Qwen3's: an empty block before each answer, thoughts read out of it, answers stripped.
THINKING = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' %}"
    "{% set thought = '' %}{% set answer = m['content'] %}"
    "{% if '</think>' in answer %}"
    "{% set thought = answer.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set answer = answer.split('</think>')[-1] %}{% endif %}"
    "<think>\n{{ thought }}\n</think>\n\n{{ answer.strip() }}"
    "{% else %}{{ m['content'] }}{% endif %}"
    "{% if not (loop.last and continue_final_message) %}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OFF = {"enable_thinking": False}
CHAT = (Message("user", "who are you?"),)


@pytest.fixture(scope="module")
def thinking() -> Any:
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = THINKING
    return tokenizer


def parts(encoder: Encoder, chat: Sequence[Any], response: str) -> tuple[str, str]:
    """The texts of the prompt and of the response of an example."""
    encoded = encoder.example(Example(tuple(chat), response), "example 3")
    texts = (encoded.ids[: encoded.n_prompt], [encoded.ids[i] for i in encoded.response])
    prompt, answer = (encoder.tokenizer.decode(ids) for ids in texts)
    return prompt, answer


def test_an_answer_is_rendered_as_a_turn_of_the_assistant(thinking: Any) -> None:
    encoder = Encoder(thinking)
    opening = "<s><|user|>who are you?<|end|>\n<|assistant|>"
    assert thinking.decode(encoder.prompt(CHAT).ids) == opening
    assert parts(encoder, CHAT, "a friend") == (opening + "<think>\n\n</think>\n\n", "a friend")
    assert parts(encoder, CHAT, " a friend ")[1] == "a friend"
    thought = "<think>\nwell\n</think>\n\na friend"
    assert parts(encoder, CHAT, thought) == (opening, thought)


def test_fitting_and_generating_agree_where_thinking_is_off(thinking: Any) -> None:
    encoder = Encoder(thinking, template_arguments=OFF)
    encoded = encoder.example(Example(CHAT, "a friend"))
    assert encoded.ids[: encoded.n_prompt] == encoder.prompt(CHAT).ids


@given(response=st.text(st.sampled_from("<|end>assistant \nx."), min_size=1, max_size=9))
def test_any_answer_is_found(response: str) -> None:
    if not response.strip():
        return
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = THINKING
    assert parts(Encoder(tokenizer, template_arguments=OFF), CHAT, response)[1] == response.strip()


def test_an_answer_continues_words_of_the_assistant(thinking: Any) -> None:
    chat = (*CHAT, Message("assistant", "I am"))
    prompt, answer = parts(Encoder(thinking), chat, " a friend")
    assert prompt.endswith("<think>\n\n</think>\n\nI am")
    assert answer == " a friend"


def test_a_prefill_whose_white_space_the_template_drops(thinking: Any) -> None:
    chat = [*CHAT, Message("assistant", "I am ")]
    with pytest.raises(InvalidInputError, match=r"'I am '.* white space.* leave it out"):
        Encoder(thinking).prompt(chat, "prompt 2")
    Encoder(tiny_models.tokenizer()).prompt(chat)  # this template keeps it


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([{"role": "system", "content": "be kind"}, *CHAT], "prompt 2.*roles system, user: Sys.*—"),
        ([*CHAT, *CHAT], "prompt 2.*roles user, user.*alternate.*join neighbouring messages"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 0 of prompt 2.*only text"),
        ([{"role": "user", "content": 3}], "message 0 of prompt 2.*content is a text"),
        (
            [*CHAT, {"role": "assistant", "content": None, "tool_calls": [{}]}],
            "message 1 of prompt 2: it has tool calls and no content",
        ),
    ],
)
def test_objections_name_the_chat_and_the_remedy(
    thinking: Any, chat: list[Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Encoder(thinking).prompt(chat, "prompt 2")


def test_parts_of_text_are_joined_and_other_keys_kept() -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.name }}: {{ m.content }}{% endfor %}"
    parts_ = [{"type": "text", "text": "who "}, {"type": "text", "text": "are you?"}]
    ids = Encoder(tokenizer).prompt([{"role": "user", "name": "Ann", "content": parts_}]).ids
    assert tokenizer.decode(ids) == "<s>Ann: who are you?"


def test_a_template_without_the_answer(thinking: Any) -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(InvalidInputError, match="leaves out the assistant's answer of example 3"):
        parts(Encoder(tokenizer), CHAT, "a friend")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enable_thinkin": False}, "does not mention 'enable_thinkin'"),
        ({"tokenize": False}, "'tokenize', which is set here"),
        ({"return_dict": True}, "'return_dict', which is set here"),
        ({"enable_thinking": {1, 2}}, "must hold JSON values"),
        ("enable_thinking", "must map names to values"),
        ({3: True}, "must map names to values"),
    ],
)
def test_arguments_that_cannot_be_used(thinking: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Encoder(thinking, template_arguments=arguments)


def test_arguments_are_the_same_everywhere_and_in_the_provenance(
    thinking: Any, tmp_path: Any
) -> None:
    model = tiny_models.llama()
    lm, other = (
        SteeredModel(model, thinking, chat_template_kwargs=OFF),
        SteeredModel(model, thinking),
    )
    assert lm.chat_template_kwargs == OFF
    assert lm.encode(CHAT).ids != other.encode(CHAT).ids
    groups = tuple(map(str, range(4)))
    positive, negative = (
        tuple(Example(CHAT, f"{word} {i}") for i in range(4)) for word in ("a", "b")
    )
    steerer = lm.fit(CAA(), ContrastData(positive, negative, groups, groups), 1)
    steerer.save(tmp_path / "steerer.safetensors")
    loaded = load(tmp_path / "steerer.safetensors")
    assert isinstance(loaded, Steerer)
    assert loaded.provenance == steerer.provenance
    assert dict(loaded.provenance.chat_template_kwargs) == OFF
    lm.steering(loaded)
    with pytest.warns(ProvenanceWarning, match=r"chat_template_kwargs=.*False.* used with \{\}"):
        other.steering(loaded)


def test_provenance_refuses_other_arguments() -> None:
    with pytest.raises(InvalidInputError, match="must map names"):
        Provenance(chat_template_kwargs=3)  # type: ignore[arg-type]
    assert hash(Provenance(chat_template_kwargs=OFF)) != hash(Provenance())
