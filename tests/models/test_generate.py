"""`SteeredModel.generate`: texts, rows, sampling, streaming, receipts, options."""

import copy
from typing import Any

import pytest
import torch
from steerers import caa, hooks_of, ode, steerer

import tiny_models
from odesteer.data import Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import Generation, SteeredModel
from odesteer.models.generation.streaming import token_texts

PROMPTS = ["the dog and the cat", "x", "who is it?"]
CHAT = [Message("user", "who are you?")]
STRENGTH = 0.4


def write(lm: SteeredModel, *args: Any, **options: Any) -> Any:
    options = {"max_new_tokens": 6, "do_sample": False, **options}
    return lm.generate(*args, **options)


def test_texts_are_what_follows_the_prompts(lm: SteeredModel) -> None:
    ids = torch.tensor([lm.encode(PROMPTS[0]).ids])
    out = lm.model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0]
    whole = lm.tokenizer.decode(out, skip_special_tokens=True)
    assert PROMPTS[0] + write(lm, PROMPTS[:1])[0] == whole


def test_a_batch_is_written_as_each_prompt_alone(any_lm: SteeredModel) -> None:
    moving = steerer()
    together = write(any_lm, PROMPTS, moving, strength=[STRENGTH, None, STRENGTH])
    alone = [
        *write(any_lm, PROMPTS[:1], moving, strength=STRENGTH),
        *write(any_lm, PROMPTS[1:2]),
        *write(any_lm, PROMPTS[2:], [moving], strength=STRENGTH),
    ]
    assert together == alone
    assert together != write(any_lm, PROMPTS)


def test_a_steerer_for_each_prompt(lm: SteeredModel) -> None:
    a, b = steerer(seed=1), steerer(layer=1, seed=2)
    mixed = write(lm, PROMPTS, [a, None, b], strength=STRENGTH)
    assert mixed[0] == write(lm, PROMPTS, a, strength=STRENGTH)[0]
    assert mixed[1] == write(lm, PROMPTS)[1]
    assert mixed[2] == write(lm, PROMPTS, b, strength=STRENGTH)[2]
    assert len(set(mixed)) == 3


def test_prompts_in_several_batches(lm: SteeredModel) -> None:
    pieces: dict[int, str] = {}
    options: dict[str, Any] = {"strength": [0.1, None, STRENGTH]}
    whole = write(lm, PROMPTS, [steerer(), steerer(), steerer(seed=1)], **options)
    parts = write(
        lm,
        PROMPTS,
        [steerer(), steerer(), steerer(seed=1)],
        **options,
        batch_size=2,
        stream=lambda row, text: pieces.update({row: pieces.get(row, "") + text}),
    )
    assert parts == whole
    assert [pieces.get(row, "") for row in range(3)] == whole


def test_one_prompt_is_a_list_of_one(lm: SteeredModel) -> None:
    assert write(lm, "x") == write(lm, ["x"])
    assert write(lm, CHAT) == write(lm, [CHAT])
    assert write(lm, [{"role": "user", "content": "who are you?"}]) == write(lm, [CHAT])
    assert write(lm, []) == []


def test_beams_keep_the_steering_of_their_row(lm: SteeredModel) -> None:
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2}
    mixed = write(lm, PROMPTS, steerer(), strength=[STRENGTH, None, STRENGTH], **options)
    assert len(mixed) == 6
    assert mixed[0:2] == write(lm, PROMPTS[:1], steerer(), strength=STRENGTH, **options)
    assert mixed[2:4] == write(lm, PROMPTS[1:2], **options)
    assert mixed[0:2] != write(lm, PROMPTS[:1], **options)


def test_several_samples_of_a_row_keep_its_steering(lm: SteeredModel) -> None:
    found = write(
        lm,
        PROMPTS[:2],
        steerer(),
        strength=[1.0, None],
        do_sample=True,
        num_return_sequences=3,
        receipt=True,
    )
    assert len(found) == 6
    assert len({g.text for g in found}) == 6
    found = write(
        lm,
        PROMPTS[:2],
        ode(),
        level=[2.0, None],
        do_sample=True,
        num_return_sequences=3,
        receipt=True,
    )
    assert all(g.before[0] is not None for g in found[:3])
    assert all(set(g.before) <= {None} for g in found[3:])


def test_sampling_repeats_by_seed_and_leaves_the_generator_alone(lm: SteeredModel) -> None:
    options = {"do_sample": True, "strength": STRENGTH}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = write(lm, PROMPTS, steerer(), **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert write(lm, PROMPTS, steerer(), **options) == first
    assert write(lm, PROMPTS, steerer(), **options, seed=1) != first
    torch.manual_seed(0)
    assert write(lm, PROMPTS, steerer(), **options, seed=None) == first
    assert write(lm, PROMPTS, steerer(), **options, seed=None) != first


def test_the_generator_is_put_back_after_an_error(lm: SteeredModel) -> None:
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="not used by the model"):
        write(lm, PROMPTS, do_sample=True, no_such_option=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_callback_gets_each_text_in_pieces(lm: SteeredModel) -> None:
    streamed: dict[int, list[str]] = {0: [], 1: [], 2: []}
    texts = write(
        lm,
        PROMPTS,
        steerer(),
        strength=STRENGTH,
        max_new_tokens=12,
        stream=lambda row, text: streamed[row].append(text),
    )
    assert ["".join(parts) for parts in streamed.values()] == texts
    assert all(len(parts) >= 3 for parts in streamed.values())


def test_a_streamer_of_transformers(lm: SteeredModel, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import TextStreamer

    streamer = TextStreamer(lm.tokenizer, skip_prompt=True, skip_special_tokens=True)
    (text,) = write(lm, PROMPTS[:1], steerer(), strength=STRENGTH, stream=streamer)
    assert capsys.readouterr().out.strip() == text.strip()
    with pytest.raises(InvalidInputError, match="shows one prompt, not 3"):
        write(lm, PROMPTS, stream=streamer)


def test_the_receipt_tells_what_steering_did_to_each_token(lm: SteeredModel) -> None:
    moving, levels = ode(max_strength=2.0), [1.0, None, -1.0]
    found = write(lm, PROMPTS, moving, level=levels, receipt=True)
    assert [g.text for g in found] == write(lm, PROMPTS, moving, level=levels)
    up, none, down = found
    assert isinstance(up, Generation)
    for one in found:
        assert "".join(one.tokens) == one.text
        assert len(one.before) == len(one.after) == len(one.tokens) == 6
        assert one.unusable == 0
    assert up.after == pytest.approx([moving.barrier.threshold(1.0)] * 6, abs=0.05)
    assert down.after == pytest.approx([moving.barrier.threshold(-1.0)] * 6, abs=0.05)
    assert all(b < a for b, a in zip(up.before, up.after, strict=True))
    assert all(b > a for b, a in zip(down.before, down.after, strict=True))
    assert none.before == none.after == [None] * 6
    assert up.capped == 0


def test_receipts_of_other_positions(lm: SteeredModel) -> None:
    """Each token is told by the activation that it was chosen from."""
    for position, first, others in (
        ("all", True, True), ("generated", False, True), ("prompt", True, False),
    ):  # fmt: skip
        (one,) = write(lm, PROMPTS[:1], ode(position=position), receipt=True)
        assert [b is not None for b in one.before] == [first] + [others] * 5


def test_a_receipt_of_a_method_without_a_barrier_or_without_a_steerer(lm: SteeredModel) -> None:
    for arguments in ([steerer()], []):
        (one,) = write(lm, PROMPTS[:1], *arguments, receipt=True)
        assert one.before == one.after == [None] * 6


def test_a_text_ends_where_the_model_ends_it(lm: SteeredModel) -> None:
    (one,) = write(lm, PROMPTS[:1], ode(), receipt=True)
    ids = lm.encode(PROMPTS[0]).ids
    with lm.steering(ode()):
        out = lm.model.generate(
            torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0
        )[0, len(ids) :].tolist()
    stop = out[3]
    shown: list[str] = []
    (ended,) = write(
        lm,
        PROMPTS[:1],
        ode(),
        eos_token_id=stop,
        receipt=True,
        stream=lambda row, text: shown.append(text),
    )
    n = out.index(stop)
    assert ended.before == pytest.approx(one.before[:n])
    assert len(ended.tokens) == n
    assert "".join(shown) == ended.text == "".join(token_texts(lm.tokenizer, ids, out[:n]))
    both = write(lm, PROMPTS, ode(), eos_token_id=stop)
    assert both[0] == ended.text


def test_characters_of_several_tokens_come_whole() -> None:
    tokenizer = tiny_models.tokenizer()
    ids = tokenizer("né – 日本", add_special_tokens=False)["input_ids"]
    parts = token_texts(tokenizer, [1], ids)
    assert "".join(parts) == "né – 日本"
    assert all("\ufffd" not in part for part in parts)
    assert "" in parts
    assert "".join(token_texts(tokenizer, [1], ids[:-1])).startswith("né – 日")


@pytest.mark.parametrize("position", ["last", "generated", "all"])
def test_speculative_decoding_writes_the_same(lm: SteeredModel, position: str) -> None:
    """Several tokens are checked in one pass; each is steered as if it came alone."""
    moving = steerer(position=position)
    wanted = write(lm, PROMPTS[:1], moving, strength=0.1, max_new_tokens=12)
    for options in (
        {"assistant_model": tiny_models.llama(num_hidden_layers=1)},
        {"prompt_lookup_num_tokens": 3},
    ):
        found = write(lm, PROMPTS[:1], moving, strength=0.1, max_new_tokens=12, **options)
        assert found == wanted
    assert wanted != write(lm, PROMPTS[:1], max_new_tokens=12)


def test_inside_an_outer_context_both_act(lm: SteeredModel) -> None:
    outer, inner = steerer(layer=1, seed=1, position="generated"), steerer(layer=3, seed=2)
    with lm.steering(outer, strength=0.2):
        both = write(lm, PROMPTS, inner, strength=0.2, use_cache=False)
        again = write(lm, PROMPTS, inner, strength=0.2)
        assert both != write(lm, PROMPTS)
    assert both == again
    assert both != write(lm, PROMPTS, inner, strength=0.2)


def test_the_model_and_tokenizer_are_left_as_they_were(lm: SteeredModel) -> None:
    before, saved = hooks_of(lm.model), lm.tokenizer.padding_side
    config = lm.model.generation_config.to_dict()
    write(lm, PROMPTS, caa())
    assert hooks_of(lm.model) == before
    assert lm.tokenizer.padding_side == saved
    assert lm.model.generation_config.to_dict() == config


BAD: list[tuple[dict[str, Any], str]] = [
    ({"level": [1.0, 2.0]}, "3 prompts and 2 amounts"),
    ({"level": float("nan")}, "level must be finite"),
    ({"level": 1.0, "strength": 1.0}, "exactly one of"),
    ({"max_new_tokens": 0}, "max_new_tokens must be positive"),
    ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer"),
    ({"max_new_tokens": 90}, "prompt 0 has 12 tokens and 90 .* max_new_tokens to 84 at most"),
    ({"batch_size": 0}, "batch_size must be a positive integer"),
    ({"num_beams": 2, "receipt": True}, "receipt does not go with num_beams=2"),
    ({"num_beams": 2, "stream": print}, "stream does not go with num_beams=2"),
    ({"attention_mask": torch.ones(1)}, "attention_mask is not an option here"),
    ({"max_length": 20}, "max_length is not an option here"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_cannot_be(lm: SteeredModel, options: dict[str, Any], message: str) -> None:
    before = hooks_of(lm.model)
    with pytest.raises(InvalidInputError, match=message):
        write(lm, PROMPTS, ode(), **options)
    assert hooks_of(lm.model) == before


def test_prompts_that_cannot_be(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match=r"prompt 1 has 101 tokens .* context 96"):
        write(lm, ["x", "y" * 100])
    with pytest.raises(InvalidInputError, match="3 prompts and 2 steerers"):
        write(lm, PROMPTS, [ode(), None])
    with pytest.raises(InvalidInputError, match="needs a steerer"):
        write(lm, PROMPTS, level=1.0)


def test_models_that_cannot_generate(lm: SteeredModel) -> None:
    headless = SteeredModel(lm.model.model, lm.tokenizer)
    with pytest.raises(ModelError, match=r"LlamaModel cannot generate; .*AutoModelForCausalLM"):
        headless.generate(PROMPTS)
    lm.model.train()
    try:
        with pytest.raises(ModelError, match="training mode"):
            write(lm, PROMPTS)
    finally:
        lm.model.eval()


def test_stop_strings_end_a_text(lm: SteeredModel) -> None:
    (whole,) = lm.generate("the dog", max_new_tokens=40, receipt=True)
    stop = next(one for one in whole.tokens[1:] if one.isascii() and one.strip())
    (text,) = lm.generate("the dog", max_new_tokens=40, stop_strings=[stop])
    assert whole.text.startswith(text)
    assert text.endswith(stop)
    assert len(text) < len(whole.text)


@pytest.mark.parametrize("option", ["prompt_lookup_num_tokens", "assistant_model"])
def test_a_callback_with_several_tokens_at_a_time(lm: SteeredModel, option: str) -> None:
    value = 3 if option == "prompt_lookup_num_tokens" else tiny_models.llama()
    parts: list[str] = []

    def take(row: int, text: str) -> None:
        assert row == 0
        parts.append(text)

    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    texts = lm.generate("the dog", caa(), stream=take, **{option: value}, **options)
    assert ["".join(parts)] == texts == lm.generate("the dog", caa(), **options)


def test_a_copy_of_a_model_is_another_model(lm: SteeredModel) -> None:
    other = copy.deepcopy(lm)
    with lm.steering(caa()):
        assert write(lm, "the dog") == write(other, "the dog", caa())
    assert other.model is not lm.model


def test_padding_that_the_embedding_lacks(lm: SteeredModel) -> None:
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.pad_token = "<beyond>"
    tokenizer.add_special_tokens({"pad_token": "<beyond>"})
    assert tokenizer.pad_token_id >= lm.model.get_input_embeddings().num_embeddings
    other = SteeredModel(lm.model, tokenizer)
    prompts = ["the dog", "x"]
    assert write(other, prompts, caa()) == write(lm, prompts, caa())


def test_a_context_length_of_minus_one_is_no_limit() -> None:
    model = tiny_models.llama()
    model.config.max_position_embeddings = -1
    assert SteeredModel(model, tiny_models.tokenizer()).context is None
