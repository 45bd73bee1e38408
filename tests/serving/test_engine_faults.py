"""Failures, cancellation and a full queue: other texts and the engine go on."""

import asyncio
import inspect
from typing import Any

import pytest
import torch
from servers import Text, read, running

import tiny_models
from odesteer import SteeredModel
from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.serving import BusyError, Engine, GenerationRequest, SamplingParams, SteeringSpec
from odesteer.serving.engine import EndedError
from odesteer.serving.engine.sampling import random_generator, sample

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
    assert (bad.last.finish_reason, bad.last.error) == ("error", "RuntimeError: out of memory")
    assert not bad.last.is_client_error


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
        return sample(logits[rows], [(each, random_generator(each, cpu)) for each in params])

    together = sampled([0, 1, 2, 3])
    assert together[1] is together[2] is None
    assert together == [token for row in range(4) for token in sampled([row])]
    assert together[3] in range(5)
