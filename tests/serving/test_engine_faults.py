"""Failures, cancellation and a full queue: other texts and the engine go on."""

import asyncio
import inspect
import threading
from typing import Any

import pytest
import torch
from servers import Text, read, running

import tiny_models
from odesteer import SteeredModel
from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.serving import BusyError, Engine, GenerationRequest, SamplingParams, SteeringSpec
from odesteer.serving.engine import EndedError
from odesteer.serving.engine.sampling import RowSampler, sample

PROMPT = "the dog and the cat"


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    model = tiny_models.llama()
    model.generation_config.eos_token_id = None  # texts end by their length alone
    return SteeredModel(model, tiny_models.tokenizer())


def request(lm: SteeredModel, n: int = 12, prompt: str = PROMPT) -> GenerationRequest:
    return GenerationRequest(lm.encode(prompt).ids, SamplingParams(n, temperature=0))


def run(scenario: Any, lm: SteeredModel, **limits: int) -> Any:
    async def _run() -> Any:
        async with running(lm, {}, **limits) as engine:
            return await scenario(engine)

    return asyncio.run(_run())


def fail_passes(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch, when: Any) -> None:
    """Let forward passes fail whose input ids meet a condition."""
    forward = lm.model.forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        if when(kwargs["input_ids"]):
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    fail.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", fail)


def test_a_prompt_that_fails_fails_alone(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = lm.generate(PROMPT, max_new_tokens=40)
    fail_passes(lm, monkeypatch, lambda ids: ids.shape[1] > 20)

    async def scenario(engine: Engine) -> list[Text]:
        (good,) = engine.submit([request(lm, 40)])
        reading = asyncio.create_task(read(good))
        await asyncio.sleep(0.02)
        (bad,) = engine.submit([request(lm, 4, "x" * 30)])
        return [await reading, await read(bad)]

    good, bad = run(scenario, lm)
    assert good.text == expected
    check_failed(bad)


def check_failed(text: Text) -> None:
    """It ended with an error that has nothing of the exception in it."""
    assert text.last.finish_reason == "error"
    assert text.last.error == "the server failed on this request; its log tells more."
    assert not text.last.is_client_error


def test_the_engine_goes_on_after_a_step_that_fails(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = lm.generate(PROMPT, max_new_tokens=12)
    fails = iter([False, False, False, True])
    fail_passes(lm, monkeypatch, lambda ids: next(fails, False))

    async def scenario(engine: Engine) -> list[Text]:
        first = await read(engine.submit([request(lm)])[0])
        return [first, await read(engine.submit([request(lm)])[0])]

    first, second = run(scenario, lm)
    assert first.last.finish_reason == "error"
    assert second.text == expected


@pytest.mark.parametrize("n_bad", [1, 2])
def test_a_step_is_repeated_without_those_it_fails_for(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch, n_bad: int
) -> None:
    """Passes fail in the last layer, when the others have run, for texts of over 40 tokens."""
    prompts = [PROMPT, "x", *["x" * 30] * n_bad, "who is it?"]
    expected = [lm.generate(prompt, max_new_tokens=24)[0] for prompt in prompts]
    is_bad = [len(lm.encode(prompt).ids) + 24 > 40 for prompt in prompts]
    assert is_bad.count(True) == n_bad
    model, layer = lm.model.forward, lm.model.model.layers[-1].forward
    lengths = torch.zeros(0)

    def note_lengths(*args: Any, **kwargs: Any) -> Any:
        nonlocal lengths
        lengths = kwargs["attention_mask"].sum(dim=1)
        return model(*args, **kwargs)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if bool((lengths > 40).any()):
            raise RuntimeError("device-side assert in /srv/kernels.cu")
        return layer(*args, **kwargs)

    note_lengths.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
    monkeypatch.setattr(lm.model, "forward", note_lengths)
    monkeypatch.setattr(lm.model.model.layers[-1], "forward", fail)

    async def scenario(engine: Engine) -> list[Text]:
        streams = engine.submit([request(lm, 24, prompt) for prompt in prompts])
        return [await read(stream) for stream in streams]

    for text, right, bad in zip(run(scenario, lm), expected, is_bad, strict=True):
        if bad:
            check_failed(text)
            assert right.startswith(text.text)
        else:
            assert text.text == right


def test_the_prompts_of_a_failed_prefill_are_tried_alone(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [PROMPT, "x" * 30, "x", "who is it?"]
    expected = [lm.generate(prompt, max_new_tokens=12)[0] for prompt in prompts]
    fail_passes(lm, monkeypatch, lambda ids: ids.shape[1] >= 30)

    async def scenario(engine: Engine) -> list[Text]:
        return [await read(s) for s in engine.submit([request(lm, 12, each) for each in prompts])]

    texts = run(scenario, lm)
    check_failed(texts.pop(1))
    assert [text.text for text in texts] == [expected[0], *expected[2:]]


def test_the_heartbeat_stops_in_a_step_and_closing_has_a_deadline(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    async def scenario(engine: Engine) -> list[float]:
        fail_passes(lm, monkeypatch, lambda ids: not go_on.wait(30))
        ages = [engine.heartbeat_age]
        (stream,) = engine.submit([request(lm)])
        await asyncio.sleep(0.5)
        ages.append(engine.heartbeat_age)
        assert not await engine.close(0.1)
        assert engine.is_alive
        go_on.set()
        assert (await read(stream)).last.finish_reason == "length"
        assert await engine.close(30)
        return ages

    idle, stuck = run(scenario, lm)
    assert idle == 0
    assert 0.3 < stuck < 10


def test_functions_run_between_steps(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> tuple[Any, Text]:
        reading = asyncio.create_task(read(engine.submit([request(lm, 40)])[0]))
        found = [await engine.call(lambda lm: lm.width) for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            await engine.call(lambda lm: 1 // 0)
        return found, await reading

    found, text = run(scenario, lm)
    assert found == [tiny_models.WIDTH] * 3
    assert [text.text] == lm.generate(PROMPT, max_new_tokens=40)


def test_a_full_queue_accepts_all_texts_or_none(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> tuple[int, list[Text]]:
        taken = engine.submit([request(lm)] * 3)
        with pytest.raises(BusyError, match="try again in") as caught:
            engine.submit([request(lm)] * 5)
        return caught.value.retry_after, [await read(stream) for stream in taken]

    retry_after, texts = run(scenario, lm, max_batch=1, max_queue=4)
    assert retry_after >= 1
    assert {text.last.finish_reason for text in texts} == {"length"}


def test_cancelled_texts_leave_the_queue(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> Text:
        streams = engine.submit([request(lm, 80)] * 4)
        for stream in streams:
            stream.cancel()
        while engine.n_running:
            await asyncio.sleep(0.005)
        return await read(engine.submit([request(lm)] * 4)[-1])

    assert run(scenario, lm, max_batch=2, max_queue=4).last.finish_reason == "length"


def test_closing_finishes_submitted_texts(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> list[Text]:
        streams = engine.submit([request(lm)] * 5)
        await engine.close()
        with pytest.raises(EndedError):
            engine.submit([request(lm)])
        return [await read(stream) for stream in streams]

    texts = run(scenario, lm, max_batch=2)
    assert [text.last.n_generated for text in texts] == [12] * 5


def test_unknown_steerers_are_refused_before_they_are_queued(lm: SteeredModel) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(UnknownNameError, match="has none"):
            engine.submit([GenerationRequest((1, 2), SamplingParams(4), (SteeringSpec("kind"),))])
        with pytest.raises(InvalidInputError, match="twice"):
            engine.submit(
                [
                    GenerationRequest(
                        (1, 2), SamplingParams(4), (SteeringSpec("a"), SteeringSpec("a"))
                    )
                ]
            )
        assert engine.n_waiting == 0

    run(scenario, lm)


def test_logits_that_are_not_finite_affect_their_row_alone() -> None:
    logits = torch.randn(4, 50)
    logits[1, 3], logits[2, 4] = torch.nan, torch.inf
    logits[3, 5:] = -torch.inf  # a vocabulary may be masked
    cpu = torch.device("cpu")

    def sampled(rows: list[int]) -> list[int | None]:
        params = [SamplingParams(1, temperature=float(row != 0), seed=row) for row in rows]
        return sample(logits[rows], [RowSampler(each, (), cpu) for each in params])

    together = sampled([0, 1, 2, 3])
    assert together[1] is together[2] is None
    assert together == [token for row in range(4) for token in sampled([row])]
    assert together[3] in range(5)
