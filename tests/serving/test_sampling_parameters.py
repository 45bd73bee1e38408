"""Sampling parameters, against transformers and formulas: penalties, biases, truncation, JSON."""

import json
from typing import Any

import pytest
import torch
from servers import Text, generated

import tiny_models
from odesteer import SteeredModel
from odesteer.models.generation.watermark import watermarking_config
from odesteer.serving import GenerationRequest, SamplingParams
from odesteer.serving.engine.sampling import RowSampler, sample

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    model = tiny_models.llama()
    model.generation_config.eos_token_id = None
    return SteeredModel(model, tiny_models.tokenizer())


def written(lm: SteeredModel, prompt: str = "the dog and the cat", **sampling: Any) -> Text:
    params = SamplingParams(24, **sampling)
    (text,) = generated(lm, [GenerationRequest(lm.encode(prompt).ids, params)])
    return text


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.4},
        {"temperature": 0.9, "min_p": 0.2},
        {"temperature": 1.1, "top_k": 7, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
)
def test_texts_equal_those_of_transformers(lm: SteeredModel, options: dict[str, Any]) -> None:
    prompt = "the dog and the cat"
    sampling = {"temperature": 0.0, **options}
    theirs = dict(options)
    if sampling["temperature"]:
        theirs |= {"do_sample": True, "seed": 3, "top_k": options.get("top_k", 0)}
        theirs.setdefault("top_p", 1.0)
    (expected,) = lm.generate(prompt, max_new_tokens=24, **theirs)
    assert written(lm, prompt, seed=3, **sampling).text == expected


def test_penalties_follow_openai_s_formula() -> None:
    params = SamplingParams(9, presence_penalty=0.5, frequency_penalty=0.25)
    sampler = RowSampler(params, [7], CPU)
    for token in (3, 3, 5):
        sampler.append(token)
    logits = torch.randn(1, 10)
    expected = logits.clone()
    expected[0, 3] -= 0.5 + 2 * 0.25
    expected[0, 5] -= 0.5 + 0.25
    assert torch.allclose(sampler.adjust(logits), expected)
    assert not torch.equal(expected, logits)  # and the model's own are unchanged


def test_a_bias_makes_a_token_certain_or_impossible() -> None:
    logits = torch.randn(2, 20)
    rows = [
        RowSampler(SamplingParams(1, temperature=0, logit_bias=((4, 100.0),)), (), CPU),
        RowSampler(
            SamplingParams(1, temperature=0, logit_bias=((int(logits[1].argmax()), -100.0),)),
            (),
            CPU,
        ),
    ]
    first, second = sample(logits, rows)
    assert first == 4
    assert second != int(logits[1].argmax())


def test_adjusted_rows_leave_others_alone(lm: SteeredModel) -> None:
    plain = SamplingParams(16, temperature=0)
    biased = SamplingParams(16, temperature=0, repetition_penalty=1.5)
    ids = lm.encode("who is it?").ids
    requests = [GenerationRequest(ids, each) for each in (plain, biased, plain)]
    first, second, third = generated(lm, requests)
    (alone,) = generated(lm, requests[:1])
    assert first.text == third.text == alone.text != second.text


def test_json_of_a_schema(bundled: SteeredModel) -> None:
    pytest.importorskip("llguidance", reason="pip install 'odesteer[json]'")
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "n": {"enum": [1, 2]}},
        "required": ["yes", "n"],
        "additionalProperties": False,
    }
    params = SamplingParams(64, temperature=1.0, seed=1, json_schema=json.dumps(schema), logprobs=0)
    ids = bundled.encode("Q: Who makes honey?\nA:").ids
    texts = generated(bundled, [GenerationRequest(ids, params)] * 2)
    for text in texts:
        found = json.loads(text.text)
        assert isinstance(found["yes"], bool)
        assert found["n"] in (1, 2)
        assert text.last.finish_reason == "stop"


MARKS = {
    "green list": {"bias": 4.0, "hashing_key": 7},
    "self hash": {"bias": 4.0, "seeding_scheme": "selfhash", "context_width": 3},
    "SynthID": {"ngram_len": 4, "keys": [654, 400, 836, 123]},
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_watermarked_texts_equal_those_of_transformers(
    lm: SteeredModel, mark: str, temperature: float
) -> None:
    prompt, text = "the dog and the cat", json.dumps(MARKS[mark])
    theirs: dict[str, Any] = {"watermarking_config": watermarking_config(text)}
    if temperature:
        theirs |= {"do_sample": True, "seed": 3, "temperature": 0.8, "top_k": 20, "top_p": 1.0}
    else:
        theirs |= {"do_sample": False}
    (expected,) = lm.generate(prompt, max_new_tokens=24, **theirs)
    sampling = {"temperature": temperature, "top_k": 20, "seed": 3}
    assert written(lm, prompt, watermark=text, **sampling).text == expected
    assert written(lm, prompt, **sampling).text != expected


def test_a_watermark_of_one_row_leaves_the_others_alone() -> None:
    logits = torch.randn(2, 269)
    before, text = logits.clone(), json.dumps({"bias": 50.0})
    params = [SamplingParams(1, temperature=0), SamplingParams(1, temperature=0, watermark=text)]
    plain, marked = sample(logits, [RowSampler(each, (5,), CPU) for each in params])
    assert plain == int(before[0].argmax())
    processor = watermarking_config(text).construct_processor(269, CPU)
    assert marked == int(processor(torch.tensor([[5]]), before[1:].clone()).argmax())
    assert torch.equal(logits, before)
