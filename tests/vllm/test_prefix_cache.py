"""Prefix cache: steered keys and values are reused only by requests steered alike."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from engines import Engine, engine, needs_vllm
from references import Case, Request, prompts

pytestmark = needs_vllm

# Every test has prompts of its own, which are not in the cache.
PROMPTS = iter(p for p in prompts(400, 110, vocabulary=500, seed=7) if len(p) > 90)


@pytest.fixture(scope="module")
def running(terrarium: Case) -> Iterator[Engine]:
    with engine(terrarium.path) as started:
        yield started


@pytest.fixture
def prompt() -> tuple[int, ...]:
    """70 tokens: two whole blocks and six tokens."""
    return next(PROMPTS)[:70]


def test_an_unsteered_request_gets_no_steered_keys(
    running: Engine, terrarium: Case, prompt: tuple[int, ...]
) -> None:
    steered, plain = Request(prompt, "everywhere-kernel@1.5"), Request(prompt)
    expected = terrarium.reference.answers([steered, plain])
    assert not expected[0].agrees(expected[1], 0.01)
    for _ in range(2):
        for request, right in zip((steered, plain), expected, strict=True):
            answer, _ = running.answer(request.prompt, request.steering)
            assert answer.agrees(right)


def test_equal_steering_shares_the_cache(
    running: Engine, terrarium: Case, prompt: tuple[int, ...]
) -> None:
    cached = [
        running.answer(prompt, text)[1]
        for text in (
            "everywhere-kernel@1.5",
            "everywhere-kernel@level=1.50",
            "everywhere-kernel@1.4",
            "everywhere-linear@1.5",
            None,
        )
    ]
    assert cached == [0, 64, 0, 0, 0]


def test_unmoved_tokens_are_shared_by_all(
    running: Engine, terrarium: Case, prompt: tuple[int, ...]
) -> None:
    for text, cached in ((None, 0), ("terrarium-kernel@1.5", 64), ("terrarium-caa", 64)):
        answer, found = running.answer(prompt, text)
        assert found == cached
        assert answer.agrees(terrarium.reference.answer(Request(prompt, text)))


def test_the_end_of_a_prompt_is_not_the_middle_of_a_longer_one(
    running: Engine, terrarium: Case, prompt: tuple[int, ...]
) -> None:
    """The last token of the short prompt, the 64th, is moved; in the long one it is not."""
    text = "terrarium-kernel@2"
    for request in (Request(prompt[:64], text), Request(prompt, text)):
        answer, _ = running.answer(request.prompt, text)
        assert answer.agrees(terrarium.reference.answer(request))


def test_generated_tokens_are_not_taken_for_those_of_a_prompt(
    running: Engine, terrarium: Case, prompt: tuple[int, ...]
) -> None:
    """A conversation goes on: what was moved while it was written is now read, unmoved."""
    text = "terrarium-kernel@2"
    first, _ = running.answer(prompt[:60], text)
    longer = Request((*prompt[:60], *first.tokens, *prompt[60:]), text)
    answer, cached = running.answer(longer.prompt, text)
    assert cached == 32
    assert answer.agrees(terrarium.reference.answer(longer))
    assert running.answer(longer.prompt, text) == (answer, 64)


def test_preempted_requests_are_computed_again_as_before(terrarium: Case) -> None:
    """Room for ten blocks where eight requests want 24 of them."""
    requests = [Request(next(PROMPTS)[:60], "terrarium-kernel@1.5") for _ in range(8)]
    requests[3:5] = [replace(request, steering=None) for request in requests[3:5]]
    with engine(terrarium.path, num_gpu_blocks_override=10, disable_log_stats=False) as small:
        answers = small.answers(requests)
        counts = [m.value for m in small.llm.get_metrics() if m.name == "vllm:num_preemptions"]
    assert sum(counts) > 0
    for request, answer in zip(requests, answers, strict=True):
        assert answer.agrees(terrarium.reference.answer(request)), request.steering
