"""Prefill in chunks beside decoding, shared prefills, lanes by length, scored prompts."""

import asyncio
import inspect
import itertools
from typing import Any

import pytest
import torch
from servers import Text, generated, read, running

import odesteer
import tiny_models
from odesteer import Amount, Site, SteeredModel, Steerer
from odesteer.serving import Engine, GenerationRequest, SamplingParams, SteeringSpec

SHORT = "the dog and the cat"
LONG = "a dog and a cat are here and there, and so on"


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    model = tiny_models.llama()
    model.generation_config.eos_token_id = None
    return SteeredModel(model, tiny_models.tokenizer())


@pytest.fixture(scope="module")
def steerers() -> dict[str, Steerer]:
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(40, tiny_models.WIDTH, generator=generator) + 0.5
    negative = torch.randn(40, tiny_models.WIDTH, generator=generator) - 0.5
    method = odesteer.CAA().fit(positive, negative)
    return {place: Steerer(method, Site(1, place)) for place in ("last", "all", "prompt")}


def request(
    lm: SteeredModel, prompt: str, n: int = 16, steerer: str | None = None, **sampling: Any
) -> GenerationRequest:
    steering = () if steerer is None else (SteeringSpec(steerer, Amount("strength", 0.5)),)
    params = SamplingParams(n, **{"temperature": 0.0, **sampling})
    return GenerationRequest(lm.encode(prompt).ids, params, steering)


def widths(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Rows, columns and cached columns of each pass from now on."""
    forward, found = lm.model.forward, []

    def noted(*args: Any, **kwargs: Any) -> Any:
        rows, columns = kwargs["input_ids"].shape
        found.append((rows, columns, kwargs["attention_mask"].shape[1] - columns))
        return forward(*args, **kwargs)

    noted.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", noted)
    return found


@pytest.mark.parametrize("steerer", [None, "last", "all", "prompt"])
def test_a_long_prompt_joins_in_chunks_between_steps(
    lm: SteeredModel,
    steerers: dict[str, Steerer],
    monkeypatch: pytest.MonkeyPatch,
    steerer: str | None,
) -> None:
    short, long = request(lm, SHORT, 60), request(lm, LONG, 12, steerer)
    amounts: dict[str, Any] = {} if steerer is None else {"strength": 0.5}
    applied = None if steerer is None else steerers[steerer]
    expected = lm.generate(LONG, applied, max_new_tokens=12, **amounts)
    alone = lm.generate(SHORT, max_new_tokens=60)
    passes = widths(lm, monkeypatch)

    async def scenario() -> list[Text]:
        async with running(lm, steerers, prefill_chunk=16) as engine:
            first = asyncio.create_task(read(engine.submit([short])[0]))
            while len(passes) < 3:
                await asyncio.sleep(0.001)
            return [await read(engine.submit([long])[0]), await first]

    texts = asyncio.run(scenario())
    assert [text.text for text in texts] == [*expected, *alone]
    chunks = [each for each in passes[2:] if each[1] > 1]
    assert len(chunks) >= len(long.prompt) // 16
    assert max(columns for _, columns, _ in chunks) <= 16
    # Between two chunks the short text goes on.
    order = [columns > 1 for _, columns, _ in passes]
    assert all(not (a and b) for a, b in itertools.pairwise(order[2:]))


def test_choices_of_one_prompt_are_computed_once(
    lm: SteeredModel, steerers: dict[str, Steerer], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = widths(lm, monkeypatch)
    asked = [request(lm, SHORT, 12, "last", temperature=1.0, seed=i) for i in range(16)]
    texts = generated(lm, asked, steerers)
    assert [each[:2] for each in passes if each[1] > 2] == [(1, len(asked[0].prompt))]
    for i in (0, 7, 15):
        (alone,) = generated(lm, asked[i : i + 1], steerers)
        assert alone.text == texts[i].text
        (found,), (own,) = texts[i].last.steering, alone.last.steering
        assert found.tokens == own.tokens == 12


def test_rows_of_unlike_length_are_in_lanes_of_their_own(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("odesteer.serving.engine.lane._PADDING", 64)
    asked = [request(lm, LONG, 20), *(request(lm, SHORT, 20) for _ in range(3))]
    asked += [request(lm, LONG + " end", 20)]
    expected = [lm.generate(p, max_new_tokens=20)[0] for p in (LONG, SHORT, LONG + " end")]
    passes = widths(lm, monkeypatch)
    texts = [text.text for text in generated(lm, asked)]
    assert texts == [expected[0], *[expected[1]] * 3, expected[2]]
    assert all(rows * (columns + past) <= 1200 for rows, columns, past in passes if columns == 1)


def test_tokens_that_run_together_have_a_budget(lm: SteeredModel) -> None:
    async def scenario() -> tuple[int, list[Text]]:
        n = len(lm.encode(LONG).ids)
        async with running(lm, {}, max_batch_tokens=2 * n + n // 2) as engine:
            streams = engine.submit([request(lm, LONG + f" {i}", 30) for i in range(6)])
            reading = [asyncio.create_task(read(stream)) for stream in streams]
            most = 0
            while not all(each.done() for each in reading):
                most = max(most, engine.n_running)
                await asyncio.sleep(0.001)
            return most, [each.result() for each in reading]

    most, texts = asyncio.run(scenario())
    assert 1 <= most <= 2
    assert {text.last.n_generated for text in texts} == {30}


def test_a_prompt_beyond_the_budget_runs_alone(lm: SteeredModel) -> None:
    texts = generated(lm, [request(lm, LONG), request(lm, SHORT)], max_batch_tokens=8)
    assert texts[0].text == lm.generate(LONG, max_new_tokens=16)[0]


@pytest.mark.parametrize("steerer", [None, "last", "all"])
@pytest.mark.parametrize("n_others", [0, 2])
def test_scored_prompts_equal_a_pass_of_the_library(
    lm: SteeredModel, steerers: dict[str, Steerer], steerer: str | None, n_others: int
) -> None:
    ids, n_prompt = lm.encode(SHORT).ids, 7
    sampling = SamplingParams(0, logprobs=3)
    steering = () if steerer is None else (SteeringSpec(steerer, Amount("strength", 0.5)),)
    asked = GenerationRequest(ids, sampling, steering, echo=True, prompt_end=n_prompt)
    others = [
        GenerationRequest(lm.encode("x" * (5 + i)).ids, sampling, echo=True)
        for i in range(n_others)
    ]
    text = generated(lm, [*others, asked], steerers)[-1]
    assert text.text == SHORT
    assert text.last.finish_reason == "length"
    tokens = [token for chunk in text.chunks for token in chunk.tokens]
    assert tokens[0].logprob is None
    with torch.no_grad():
        inputs = torch.tensor([ids])
        if steerer is None:
            logits = lm.model(inputs).logits[0]
        else:
            with lm.steering(steerers[steerer], prompt_width=n_prompt, strength=0.5):
                logits = lm.model(inputs).logits[0]
    expected = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    found = torch.tensor([token.logprob for token in tokens[1:]])
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(len(token.alternatives) == 3 for token in tokens[1:])


def test_the_end_of_a_text_is_a_token_behind_a_scored_prompt() -> None:
    """lm-eval drops the last token of an answer: it must be there when the text ends at once."""
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    ids = lm.encode(SHORT).ids
    end = lm.tokenizer.eos_token_id
    lm.model.generation_config.eos_token_id = end
    sampling = SamplingParams(1, temperature=0, logprobs=1, logit_bias=((end, 100.0),))
    (text,) = generated(lm, [GenerationRequest(ids, sampling, echo=True)])
    tokens = [token for chunk in text.chunks for token in chunk.tokens]
    assert text.last.finish_reason == "stop"
    assert text.text == SHORT
    assert len(tokens) == len(ids) + 1
    assert tokens[-1].logprob is not None


def test_a_failed_step_of_a_recurrent_model_isolates_its_offender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its state may have changed: the others are computed again from their tokens."""
    model = tiny_models.mamba()
    model.generation_config.eos_token_id = None
    lm = SteeredModel(model, tiny_models.tokenizer())
    prompts = [SHORT, "who is it?", "x" * 9, "a b c"]
    expected = [lm.generate(prompt, max_new_tokens=14)[0] for prompt in prompts]
    forward, marked = lm.model.forward, lm.encode("x" * 9).ids
    bad: list[int] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        ids, output = kwargs["input_ids"], None
        if ids.shape[1] > 1:
            bad[:] = [i for i, row in enumerate(ids.tolist()) if str([*marked])[1:-1] in str(row)]
            output = forward(*args, **kwargs)
        elif bad and len(ids) > max(bad):
            forward(*args, **kwargs)  # the state has changed when it fails
            raise RuntimeError("device-side assert")
        return forward(*args, **kwargs) if output is None else output

    fail.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", fail)

    async def scenario() -> list[Text]:
        async with running(lm, {}) as engine:
            streams = engine.submit([request(lm, prompt, 14) for prompt in prompts])
            return list(await asyncio.gather(*map(read, streams)))

    texts = asyncio.run(scenario())
    assert [text.last.finish_reason for text in texts] == ["length", "length", "error", "length"]
    assert [text.text for i, text in enumerate(texts) if i != 2] == [
        *expected[:2],
        expected[3],
    ]


def test_a_stopped_engine_fails_waiting_prefills(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> Text:
        (stream,) = engine.submit([request(lm, LONG, 4)])
        stream.cancel()
        return await read(engine.submit([request(lm, SHORT, 4)])[0])

    async def run() -> Text:
        async with running(lm, {}, prefill_chunk=2) as engine:
            return await scenario(engine)

    assert asyncio.run(run()).last.n_generated == 4
