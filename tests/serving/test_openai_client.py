"""The unmodified OpenAI client against `odesteer serve`."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from servers import Server

from odesteer import SteeredModel, Steerer
from odesteer.terrarium import world

QUESTION = "Hey, what do you use to measure temperature?"
CHAT = [{"role": "user", "content": QUESTION}]
PROMPT = f"Q: {QUESTION}\nA:"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
        yield client


def test_chat(client: OpenAI, bundled: SteeredModel, steerers: dict[str, Steerer]) -> None:
    answer = client.chat.completions.create(
        model="bundled+truth@1.5", messages=CHAT, temperature=0, max_tokens=24
    )
    (text,) = bundled.generate([CHAT], steerers["truth"], level=1.5, max_new_tokens=24)
    (choice,) = answer.choices
    assert choice.message.content == text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(bundled.encode(CHAT))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_model_suffix_and_steering_field_are_equivalent(client: OpenAI) -> None:
    ways = [
        ("bundled+truth@-1", None),
        ("bundled+truth@level=-1", None),
        ("bundled", {"steering": [{"name": "truth", "level": -1}]}),
        ("bundled", None),
    ]
    texts = [
        client.chat.completions.create(
            model=model, messages=CHAT, temperature=0, max_tokens=24, extra_body=extra
        )
        .choices[0]
        .message.content
        for model, extra in ways
    ]
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_a_streamed_text_equals_the_whole_one(client: OpenAI) -> None:
    body = {"model": "bundled+mood@-2", "prompt": world("mood").prompts("test", 1, 1)[0]}
    sampling = {"max_tokens": 40, "temperature": 0.9, "seed": 7}
    whole = client.completions.create(**body, **sampling)
    chunks = list(
        client.completions.create(
            **body, **sampling, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].text
    assert len(texts) > 10
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].steering_receipt == whole.steering_receipt
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_streams_with_its_role_first(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="bundled", messages=CHAT, temperature=0, max_tokens=24, stream=True
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = client.chat.completions.create(
        model="bundled", messages=CHAT, temperature=0, max_tokens=24
    )
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_seed_fixes_the_texts(
    client: OpenAI, bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    prompt = world("mood").prompts("test", 2, 1)[0]

    def texts(model: str, seed: int, n: int = 1) -> list[str]:
        answer = client.completions.create(
            model=model, prompt=prompt, max_tokens=30, temperature=0.8, top_p=0.9, seed=seed, n=n
        )
        return [choice.text for choice in answer.choices]

    for model, amounts in (("bundled", {}), ("bundled+mood@1", {"level": 1.0})):
        expected = [
            bundled.generate(
                prompt,
                steerers["mood"] if amounts else None,
                max_new_tokens=30,
                do_sample=True,
                temperature=0.8,
                top_p=0.9,
                top_k=0,
                seed=seed,
                **amounts,
            )[0]
            for seed in (5, 6)
        ]
        assert texts(model, 5) + texts(model, 6) == expected
        assert texts(model, 5, n=2) == expected
    assert len({texts("bundled", seed)[0] for seed in range(4)}) > 1


def test_choices_stream_side_by_side(client: OpenAI) -> None:
    body = {"model": "bundled+mood@1", "max_tokens": 20, "temperature": 1, "seed": 3, "n": 3}
    prompts = list(world("mood").prompts("test", 3, 2))
    whole = client.completions.create(prompt=prompts, **body)
    texts = [""] * 6
    for chunk in client.completions.create(prompt=prompts, stream=True, **body):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == list(range(6))
    applied = whole.steering_receipt["applied"]
    assert [entry["choice"] for entry in applied] == list(range(6))


def test_log_probabilities(client: OpenAI, bundled: SteeredModel) -> None:
    answer = client.chat.completions.create(
        model="bundled", messages=CHAT, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
    )
    (choice,) = answer.choices
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    for token in content:
        assert token.logprob == max(one.logprob for one in token.top_logprobs)
        assert token.top_logprobs[0].token.strip() == token.token.strip()
        assert bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 3
    inputs = bundled.tokenizer.apply_chat_template(
        CHAT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    logits = bundled.model(**inputs).logits[0, -1]
    expected = logits.log_softmax(-1).topk(3).values.tolist()
    found = [one.logprob for one in content[0].top_logprobs]
    assert found == pytest.approx(expected, abs=1e-4)


def test_log_probabilities_of_completions(client: OpenAI) -> None:
    body = {"model": "bundled", "prompt": PROMPT, "temperature": 0, "max_tokens": 8}
    (choice,) = client.completions.create(**body, logprobs=2).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == [
        len("".join(logprobs.tokens[:i])) for i in range(len(logprobs.tokens))
    ]
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    streamed = [
        chunk.choices[0].logprobs
        for chunk in client.completions.create(**body, logprobs=2, stream=True)
    ]
    assert [offset for part in streamed for offset in part.text_offset] == logprobs.text_offset


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_text_before_it(client: OpenAI, stream: bool) -> None:
    body = {"model": "bundled", "prompt": PROMPT, "temperature": 0, "max_tokens": 24}
    text = client.completions.create(**body).choices[0].text
    middle = text[3 : len(text) // 2 + 3]
    answer = client.completions.create(**body, stop=["never said", middle], stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    assert "".join(choice.text for choice in choices) == text[:3]
    assert choices[-1].finish_reason == "stop"


def test_the_length_ends_the_text(client: OpenAI) -> None:
    (choice,) = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=2).choices
    assert choice.finish_reason == "length"


def test_prompts_may_be_token_ids(client: OpenAI, bundled: SteeredModel) -> None:
    ids = list(bundled.encode(PROMPT).ids)
    body = {"model": "bundled", "temperature": 0, "max_tokens": 12}
    texts = [
        [choice.text for choice in client.completions.create(prompt=prompt, **body).choices]
        for prompt in (PROMPT, ids, [ids, ids], [PROMPT, PROMPT])
    ]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3] == texts[0] * 2


def test_every_answer_has_a_receipt(client: OpenAI, steerers: dict[str, Steerer]) -> None:
    answer = client.completions.create(
        model="bundled+truth@1.5",
        prompt=PROMPT,
        temperature=0,
        max_tokens=24,
        extra_body={"steering": [{"name": "mood", "observe": True}], "token_details": True},
    )
    moved, observed = answer.steering_receipt["applied"]
    assert (moved["name"], moved["layer"], moved["position"]) == ("truth", 4, "last")
    assert (moved["quantity"], moved["amount"]) == ("level", 1.5)
    assert moved["digest"] == steerers["truth"].digest()
    target = 1.5 * steerers["truth"].barrier.upper_
    assert moved["mean_before"] < moved["mean_after"] == pytest.approx(target, rel=0.05)
    assert moved["tokens"] == answer.usage.completion_tokens
    assert observed["mean_before"] == observed["mean_after"]
    assert observed["amount"] is None
    tokens = answer.choices[0].odesteer["tokens"]
    assert "".join(token["text"] for token in tokens) == answer.choices[0].text
    assert all({*token["values"]} == {"truth", "mood"} for token in tokens)
    unsteered = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=2)
    assert unsteered.steering_receipt == {"applied": []}


def test_models_are_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["bundled", "bundled+truth", "bundled+civility", "bundled+mood"]
    assert client.models.retrieve("bundled+truth@1.5+mood").id == "bundled+truth@1.5+mood"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "this server has 'bundled'"),
        ({"model": "bundled+kind@1"}, openai.NotFoundError, "truth, civility, mood"),
        ({"model": "bundled+truth@much"}, openai.BadRequestError, "not an amount"),
        ({"model": "bundled+truth@interpolation=1"}, openai.BadRequestError, "interpolation"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"prompt": "a " * 2000}, openai.BadRequestError, "context"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"frequency_penalty": 3}, openai.BadRequestError, "frequency_penalty"),
        ({"extra_body": {"steer": 1}}, openai.BadRequestError, "steer: there is no such field"),
        (
            {"extra_body": {"steering": [{"name": "truth", "level": 1, "T": 2}]}},
            openai.BadRequestError,
            "exactly one of level",
        ),
    ],
)
def test_error_messages(
    client: OpenAI, fields: dict[str, object], error: type[openai.APIStatusError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        client.completions.create(**{"model": "bundled", "prompt": PROMPT, **fields})
    assert {*caught.value.body} == {"message", "type", "param", "code"}
