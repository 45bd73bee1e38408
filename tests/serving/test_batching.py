"""Batched texts equal those that `generate` writes alone."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from servers import Text, generated, read, running

import odesteer
import tiny_models
from odesteer import Amount, Gate, Site, SteeredModel, Steerer, SteererSet
from odesteer.artifact import Provenance
from odesteer.serving import GenerationRequest, SamplingParams, SteeringSpec
from odesteer.terrarium import world, worlds

LEVELS = (None, 1.5, -1.0)
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
)
MERGEABLE = {
    name: getattr(tiny_models, name)
    for name in ("llama", "gpt2", "opt", "bloom", "gpt_neox", "falcon", "mistral", "gemma2", "mpt")
}
STATIC = {name: getattr(tiny_models, name) for name in ("mamba", "jamba")}


def expected(lm: SteeredModel, request: GenerationRequest, steerer: Any = None) -> str:
    """What `generate` writes for a request alone."""
    sampling = request.sampling
    options: dict[str, Any] = {}
    if sampling.temperature:
        options = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
    amount = request.steering[0].amount if request.steering else None
    if amount is not None:
        options[amount.quantity] = amount.value
    (text,) = lm.generate(
        lm.tokenizer.decode(request.prompt, skip_special_tokens=True),
        steerer,
        max_new_tokens=sampling.max_tokens,
        seed=sampling.seed,
        **options,
    )
    return text


def mixed_requests(lm: SteeredModel, n: int) -> list[GenerationRequest]:
    requests = []
    for its in worlds():
        for i, prompt in enumerate(its.prompts("test", 1, n)):
            for j, draw in enumerate(SAMPLINGS):
                level = LEVELS[(i + j) % len(LEVELS)]
                steering = (
                    () if level is None else (SteeringSpec(its.name, Amount("level", level)),)
                )
                sampling = SamplingParams(16 + 3 * i, seed=10 * i + j, **draw)
                requests.append(GenerationRequest(lm.encode(prompt).ids, sampling, steering))
    return requests


def check(
    lm: SteeredModel, requests: list[GenerationRequest], texts: list[Text], steerers: dict[str, Any]
) -> None:
    for request, text in zip(requests, texts, strict=True):
        steerer = steerers[request.steering[0].name] if request.steering else None
        assert text.text == expected(lm, request, steerer), request


def test_texts_equal_those_that_generate_writes(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    requests = mixed_requests(bundled, 3)
    texts = generated(bundled, requests, steerers)
    check(bundled, requests, texts, steerers)
    assert len({text.text for text in texts}) > len(texts) // 3


@pytest.mark.parametrize("position", ["last:1:5", "generated:3:", "after:MARKER", "thinking:a..e"])
def test_windows_and_phases_while_sequences_join_and_leave(position: str) -> None:
    """With rows that are padded, of other requests, and tokens that an earlier pass has read."""
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    requests = [
        GenerationRequest(
            lm.encode(prompt).ids,
            SamplingParams(4 + 5 * i, seed=i, temperature=1.0),
            (SteeringSpec("caa", Amount("strength", 20.0)),),
        )
        for i, prompt in enumerate(("the a", "and the the and", "x"))
    ]

    unsteered = [replace(request, steering=()) for request in requests]
    plain = [expected(lm, request) for request in unsteered]
    marker = next(c for c in plain[2] if c.isascii())
    site = Site(3, position.replace("MARKER", marker))
    own = Steerer(odesteer.CAA().fit(*clouds()), site)

    async def write() -> list[Text]:
        async with running(lm, {"caa": own}, max_batch=2) as engine:
            return await asyncio.gather(*(read(engine.submit([each])[0]) for each in requests))

    texts = asyncio.run(write())
    check(lm, requests, texts, {"caa": own})
    moved = [text.last.steering[0].tokens for text in texts]
    own_moved = []
    for request in requests:
        with lm.steering(own, strength=20.0, receipt=True) as steering:
            expected(lm, replace(request, steering=()))
        own_moved.append(len(steering.receipt()))
    assert moved == own_moved
    assert sum(moved) > 0


def test_sequences_join_and_leave_while_others_run(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    requests = mixed_requests(bundled, 2)

    async def write() -> list[Text]:
        async with running(bundled, steerers, max_batch=3) as engine:
            reading = []
            for request in requests:
                (stream,) = engine.submit([request])
                reading.append(asyncio.create_task(read(stream)))
                await asyncio.sleep(0.004)
            return list(await asyncio.gather(*reading))

    check(bundled, requests, asyncio.run(write()), steerers)


@pytest.mark.parametrize(
    "build", [*MERGEABLE.values(), *STATIC.values()], ids=[*MERGEABLE, *STATIC]
)
def test_every_architecture(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = SteeredModel(build(), tiny_models.tokenizer())
    method = odesteer.CAA().fit(*clouds())
    steerers = {"shift": Steerer(method, Site(1))}
    prompts = ("the dog and the cat", "x", "who is it, and why?")
    requests = [
        GenerationRequest(
            lm.encode(prompt).ids,
            SamplingParams(8 + i, seed=i, **draw),
            (SteeringSpec("shift", Amount("strength", 0.5)),) if i else (),
        )
        for i, prompt in enumerate(prompts)
        for draw in SAMPLINGS[:2]
    ]
    check(lm, requests, generated(lm, requests, steerers, max_batch=4), steerers)


def test_only_models_without_a_mergeable_cache_are_run_in_static_batches() -> None:
    from odesteer.serving.engine.batch import Batch

    def can_merge(build: Any) -> bool:
        return Batch(
            SteeredModel(build(), tiny_models.tokenizer()), 0, chunk=64, max_tokens=4096
        ).can_merge

    assert all(map(can_merge, MERGEABLE.values()))
    assert not any(map(can_merge, STATIC.values()))


def clouds() -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(tiny_models.WIDTH, generator=generator)
    both = [torch.randn(24, tiny_models.WIDTH, generator=generator) for _ in range(2)]
    return both[0] + offset, both[1] - offset


def test_several_steerers_are_applied_one_after_another(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    # Both act at one layer, so the last one decides.
    amounts: dict[str, Any] = {"civil": {"level": 1.5}, "rude": {"level": -1.5}}
    registered = dict.fromkeys(amounts, steerers["civility"])
    prompts = world("civility").prompts("test", 5, 4)
    orders = (("civil", "rude"), ("rude", "civil"))
    requests = [
        GenerationRequest(
            bundled.encode(prompt).ids,
            SamplingParams(24, temperature=0),
            tuple(SteeringSpec(name, Amount.of(**amounts[name])) for name in order),
        )
        for order in orders
        for prompt in prompts
    ]
    texts = [text.text for text in generated(bundled, requests, registered)]
    for order, own in zip(orders, (texts[:4], texts[4:]), strict=True):
        outer, inner = (bundled.steering(registered[name], **amounts[name]) for name in order)
        with outer, inner:
            assert own == [bundled.generate(prompt, max_new_tokens=24)[0] for prompt in prompts]
    assert texts[:4] != texts[4:]


def test_sets_and_positions_steer_as_in_generate(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    its = world("mood")
    method = steerers["mood"].method
    registered = {
        "set": SteererSet([Steerer(method, Site(4, "all")), Steerer(method, Site(5))]),
        "prompt": Steerer(method, Site(5, "prompt")),
        "generated": Steerer(method, Site(5, "generated")),
    }
    requests = [
        GenerationRequest(
            bundled.encode(prompt).ids,
            SamplingParams(30, temperature=0),
            (SteeringSpec(name, Amount("level", -2.0)),),
        )
        for prompt in its.prompts("test", 6, 4)
        for name in registered
    ]
    texts = generated(bundled, requests, registered)
    check(bundled, requests, texts, registered)
    (summary, other) = texts[0].last.steering
    assert (summary.layer, summary.position, other.layer) == (4, "all", 5)
    for request, text in zip(requests, texts, strict=True):
        n = text.last.n_generated
        expected_tokens = {"set": n, "prompt": 1, "generated": n - 1}[request.steering[0].name]
        assert {summary.tokens for summary in text.last.steering} == {expected_tokens}


def test_a_gate_is_decided_once_by_the_prompt(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    prompts = [*world("mood").prompts("test", 7, 4), *world("truth").prompts("test", 7, 4)]
    condition = steerers["truth"]
    with bundled.steering(condition, T=0.0, receipt=True) as observed_steering:
        bundled.generate(prompts, max_new_tokens=1)
    found = observed_steering.receipt().before.tolist()[: len(prompts)]
    middle = sorted(found)[len(found) // 2] / condition.barrier.upper_
    assert middle > 0 or condition.barrier.lower_ < 0
    level = middle if middle > 0 else -sorted(found)[len(found) // 2] / condition.barrier.lower_
    gated = Steerer(steerers["mood"].method, Site(5), Provenance(), Gate(condition, above=level))
    requests = [
        GenerationRequest(
            bundled.encode(prompt).ids,
            SamplingParams(24, temperature=0),
            (SteeringSpec("gated", Amount("level", -2.0)),),
        )
        for prompt in prompts
    ]
    texts = generated(bundled, requests, {"gated": gated})
    check(bundled, requests, texts, {"gated": gated})
    decisions = [text.last.steering[0].gate_open for text in texts]
    assert True in decisions
    assert False in decisions
    for text, gate_open in zip(texts, decisions, strict=True):
        summary = text.last.steering[0]
        assert summary.tokens == (text.last.n_generated if gate_open else 0)


def test_receipts_and_token_values_are_those_of_generate(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    prompts = world("civility").prompts("test", 8, 4)
    steering = (SteeringSpec("civility", Amount("level", 1.0)), SteeringSpec("mood", observe=True))
    requests = [
        GenerationRequest(bundled.encode(prompt).ids, SamplingParams(20, temperature=0), steering)
        for prompt in prompts
    ]
    for prompt, text in zip(prompts, generated(bundled, requests, steerers), strict=True):
        (alone,) = bundled.generate(
            prompt, steerers["civility"], level=1.0, max_new_tokens=20, receipt=True
        )
        tokens = [token for chunk in text.chunks for token in chunk.tokens]
        assert [token.text for token in tokens] == alone.tokens
        values = [token.barriers["civility"] for token in tokens]
        assert [value.before for value in values] == pytest.approx(alone.before, abs=1e-4)
        assert [value.after for value in values] == pytest.approx(alone.after, abs=1e-4)
        assert all(t.barriers["mood"].before == t.barriers["mood"].after for t in tokens)
        moved, observed = text.last.steering
        assert (moved.quantity, moved.amount) == ("level", 1.0)
        assert (observed.quantity, observed.amount) == (None, None)
        assert moved.tokens == text.last.n_generated
        assert moved.digest == steerers["civility"].digest()
