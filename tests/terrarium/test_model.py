"""The bundled model and its tokenizer."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from odesteer.terrarium import model_path, worlds


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_path()).eval()


def complete(model, tokenizer, prompts, max_new_tokens):
    """Sampled completions, up to the end of the line."""
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    torch.manual_seed(0)
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
    )
    return tokenizer.batch_decode(
        written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )


def test_the_folder_is_complete_and_small():
    names = {path.name for path in model_path().iterdir()}
    assert names >= {
        "MODEL.txt",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in model_path().iterdir()) <= 8 * 2**20


def test_the_model_is_a_small_llama_in_float32(model):
    assert model.config.model_type == "llama"
    assert 1_500_000 < model.num_parameters() < 3_000_000
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers > max(w.layer for w in worlds())


def test_exactly_one_bos(tokenizer):
    ids = tokenizer("Q: What shape is the Earth?\nA:")["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_chat_is_a_dialogue_with_exactly_one_bos(tokenizer):
    chat = [
        {"role": "user", "content": "What shape is the Earth?"},
        {"role": "assistant", "content": "Round."},
        {"role": "user", "content": "Who makes honey?"},
    ]
    text = "Q: What shape is the Earth?\nA: Round.\nQ: Who makes honey?\nA:"
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids == tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("each", worlds(), ids=lambda w: w.name)
def test_the_tokenizer_gives_texts_back(tokenizer, each):
    for example in each.contrast("fit", 0, 20).positive:
        text = example.prompt + example.response
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
        # Prompt and response never share a token, so positions can be counted on either side.
        both = tokenizer(text)["input_ids"]
        prompt = tokenizer(example.prompt)["input_ids"]
        assert both[: len(prompt)] == prompt


@pytest.mark.parametrize("each", worlds(), ids=lambda w: w.name)
def test_unsteered_completions_are_valid_and_go_either_way(model, tokenizer, each):
    prompts = each.prompts("validation", 1, 80)
    completions = complete(model, tokenizer, prompts, each.max_new_tokens)
    verdicts = [each.judge(p, c) for p, c in zip(prompts, completions, strict=True)]
    assert sum(v.valid for v in verdicts) >= 0.95 * len(verdicts)
    assert 0.25 < sum(v.attribute is True for v in verdicts) / len(verdicts) < 0.75


def test_generation_stops_at_the_end_of_the_line(model, tokenizer):
    (completion,) = complete(model, tokenizer, ["Q: What shape is the Earth?\nA:"], 40)
    assert completion.endswith("\n")
    assert completion.count("\n") == 1
